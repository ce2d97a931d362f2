"""Convolutions with the signatures and semantics of torch.nn.functional, each served by the target that dispatch selects.

A call is brought to the form of torch.ops.aten.convolution and handed to accelops.dispatch. What torch would refuse, and
tensors that only torch understands (subclasses, complex, quantised, other devices), go to torch's own function, so that
the errors are its own. The activation follows the bias; GELU is the exact one (erf).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from accelops.dispatch.conv import ACTIVATION_FUNCTIONS, accepted, conv
from accelops.dispatch.select import asked_target
from accelops.kernels.conv.spec import ACTIVATIONS, ConvSpec
from accelops.targets import DEVICE_TYPES, TargetUnavailable

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

Size = int | tuple[int, ...]
_PLAIN = (Tensor, torch.nn.Parameter)
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_DOCUMENTATION = """{ndim}D {kind} of torch.nn.functional.{name}, followed by `activation` ("none", "relu", "silu" or "gelu").

Shape: input (N, C, {spatial}) or (C, {spatial}), weight {weight}, bias (K,), result (N, K, {out}) or (K, {out}).
{padding}
`target` names the target that must serve the call (see accelops.use); without it the fastest known one does.
Double backward is torch's own, whatever the target.
Raises what torch.nn.functional.{name} raises, ValueError for an unknown activation, TargetUnavailable where the named
target cannot serve. Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning"."""


def _convolution(ndim: int) -> Callable[..., Tensor]:
    name = f"conv{ndim}d"
    torchs = getattr(torch, name)

    def convolution(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        *,
        activation: str = "none",
        target: str | None = None,
    ) -> Tensor:
        if has_torch_function((input, weight, bias)):
            options = {"activation": activation, "target": target}
            rest = (bias, stride, padding, dilation, groups)
            return handle_torch_function(public, (input, weight, bias), input, weight, *rest, **options)
        _check_activation(name, activation)
        form = None
        if _served(input, weight, bias):
            form = _form(ndim, _shapes(input, weight, bias), (stride, padding, dilation, False, 0, groups))
        if form is None:
            _check_target(name, target)
            return ACTIVATION_FUNCTIONS[activation](torchs(input, weight, bias, stride, padding, dilation, groups))
        extra, parameters = form
        if extra is not None:
            input = torch.nn.functional.pad(input, extra)
        return _batched(ndim, input, weight, bias, parameters, activation, target)

    weight = f"(K, C/groups, {_axes('T R S', ndim)})"
    padding = '`padding` may be "valid" (none) or "same" (the input\'s size, for stride 1).'
    public = _named(convolution, name, ndim, "convolution", weight, padding)
    return public


def _transposed_convolution(ndim: int) -> Callable[..., Tensor]:
    name = f"conv_transpose{ndim}d"
    torchs = getattr(torch, name)

    def convolution(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        dilation: Size = 1,
        *,
        activation: str = "none",
        target: str | None = None,
    ) -> Tensor:
        rest = (bias, stride, padding, output_padding, groups, dilation)
        if has_torch_function((input, weight, bias)):
            options = {"activation": activation, "target": target}
            return handle_torch_function(public, (input, weight, bias), input, weight, *rest, **options)
        _check_activation(name, activation)
        form = None
        if _served(input, weight, bias):
            parameters = (stride, padding, dilation, True, output_padding, groups)
            form = _form(ndim, _shapes(input, weight, bias), parameters)
        if form is None:
            _check_target(name, target)
            return ACTIVATION_FUNCTIONS[activation](torchs(input, weight, *rest))
        return _batched(ndim, input, weight, bias, form[1], activation, target)

    weight = f"(C, K/groups, {_axes('T R S', ndim)})"
    padding = "`output_padding` is added to one side of the result."
    public = _named(convolution, name, ndim, "transposed convolution", weight, padding)
    return public


def _named(
    function: Callable[..., Tensor], name: str, ndim: int, kind: str, weight: str, padding: str
) -> Callable[..., Tensor]:
    function.__name__ = function.__qualname__ = name
    axes = {"spatial": _axes("D H W", ndim), "out": _axes("O P Q", ndim)}
    function.__doc__ = _DOCUMENTATION.format(ndim=ndim, kind=kind, name=name, weight=weight, padding=padding, **axes)
    return function


def _axes(names: str, ndim: int) -> str:
    return ", ".join(names.split()[-ndim:])


def _check_activation(name: str, activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"{name}: activation={activation!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")


def _check_target(name: str, target: str | None) -> None:
    """A target asked for by name is never replaced by torch; what torch refuses it refuses in its own words first."""
    asked = target or asked_target()
    if asked not in (None, "aten"):
        raise TargetUnavailable(
            f"{name}: target={asked!r} cannot serve these operands, which only torch understands or refuses; "
            "leave the target out, or name aten"
        )


def _served(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether dispatch may see these tensors: dense, real, of a device that has targets, no wrapper of any kind."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    tensors = (input, weight) if bias is None else (input, weight, bias)
    return all(
        type(t) in _PLAIN and t.dtype in _DTYPES and t.layout is torch.strided and t.device.type in DEVICE_TYPES
        for t in tensors
    )


def _shapes(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(input.shape), tuple(weight.shape), None if bias is None else tuple(bias.shape)


def _form(ndim: int, shapes: tuple[Any, ...], parameters: tuple[Any, ...]) -> Any:
    """(what to pad the input with first or None, the parameters of aten::convolution), or None where torch refuses."""
    stride, padding, dilation, transposed, output_padding, groups = parameters
    lists = (_hashable(stride), _hashable(padding), _hashable(dilation), transposed, _hashable(output_padding), groups)
    try:
        return _cached_form(ndim, shapes, lists)
    except TypeError:  # not numbers: torch says what it expected
        return None


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, torch.Size)) else value


@lru_cache(maxsize=65536)
def _cached_form(ndim: int, shapes: tuple[Any, ...], parameters: tuple[Any, ...]) -> Any:
    input, weight, bias = shapes
    stride, padding, dilation, transposed, output_padding, groups = parameters
    if len(weight) != ndim + 2 or len(input) not in (ndim + 1, ndim + 2) or type(groups) is not int:
        return None
    if len(input) == ndim + 1:
        input = (1, *input)
    extra = None
    stride, dilation, output_padding = (_per_axis(v, ndim) for v in (stride, dilation, output_padding))
    if isinstance(padding, str):
        if padding not in ("same", "valid") or dilation is None or (padding == "same" and stride != (1,) * ndim):
            return None
        reach = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight[2:], strict=True)]
        padding = tuple(r // 2 for r in reach)
        odd = [r % 2 for r in reach]
        if any(odd):  # the larger half goes behind, as torch has it
            extra = tuple(v for o in reversed(odd) for v in (0, o))
            input = (*input[:2], *(size + o for size, o in zip(input[2:], odd, strict=True)))
    else:
        padding = _per_axis(padding, ndim)
    lists = (stride, padding, dilation, transposed, output_padding, groups)
    if None in lists or (bias is not None and bias != (weight[1] * groups if transposed else weight[0],)):
        return None
    spec = ConvSpec("fprop", input, weight, *lists[:4], output_padding if transposed else (), groups, bias is not None)
    return (extra, lists) if accepted(spec) else None


def _per_axis(value: Any, ndim: int) -> tuple[int, ...] | None:
    values = value if isinstance(value, tuple) else (value,)
    if any(type(v) is not int for v in values) or len(values) not in (1, ndim):
        return None
    return values * ndim if len(values) == 1 else values


def _batched(
    ndim: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    parameters: tuple[Any, ...],
    activation: str,
    target: str | None,
) -> Tensor:
    if input.dim() == ndim + 2:
        return conv(input, weight, bias, *parameters, activation, target)
    return conv(input.unsqueeze(0), weight, bias, *parameters, activation, target).squeeze(0)


conv1d = _convolution(1)
conv2d = _convolution(2)
conv3d = _convolution(3)
conv_transpose1d = _transposed_convolution(1)
conv_transpose2d = _transposed_convolution(2)
conv_transpose3d = _transposed_convolution(3)
