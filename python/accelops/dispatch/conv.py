"""The op accelops::conv: schemas, fakes, autograd, and the way from tensors to a Selection and back.

`conv` is what every face calls. It decomposes (CompositeImplicitAutograd), so that autocast, vmap, functorch, forward AD,
torch.compile and export see ops they know: with autograd an autograd.Function over accelops::conv_forward and
accelops::conv_backward; under functorch transforms and forward AD, torch's own convolution and activation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.autograd.forward_ad
from torch import Tensor

from accelops.kernels.conv import aten
from accelops.kernels.conv.spec import ACTIVATIONS, ConvSpec
from accelops.kernels.conv.tensors import memory_format

from .select import Selection, asked_target, cached_by, select

_library = torch.library.Library("accelops", "FRAGMENT")
_PARAMETERS = (
    "SymInt[] stride, SymInt[] padding, SymInt[] dilation, bool transposed, SymInt[] output_padding, SymInt groups"
)
_TAGS = (torch.Tag.pt2_compliant_tag,)
_library.define(
    f'conv(Tensor input, Tensor weight, Tensor? bias, {_PARAMETERS}, str activation="none", str? target=None) -> Tensor',
    tags=_TAGS,
)
_library.define(
    f"conv_forward(Tensor input, Tensor weight, Tensor? bias, {_PARAMETERS}, str activation, bool save, str? target)"
    " -> (Tensor, Tensor)",
    tags=_TAGS,
)
_library.define(
    f"conv_backward(Tensor grad_output, Tensor input, Tensor weight, Tensor saved, {_PARAMETERS}, str activation,"
    " bool[3] output_mask, str? target) -> (Tensor, Tensor, Tensor)",
    tags=_TAGS,
)

_aten_convolution = torch.ops.aten.convolution.default
_aten_convolution_backward = torch.ops.aten.convolution_backward.default
_functorch_active = torch._C._are_functorch_transforms_active

ACTIVATION_FUNCTIONS = {
    "none": lambda x: x,
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
}


def memory_format_of(input: Tensor, weight: Tensor) -> str:
    """The format in which torch would run: channels_last where the strides of either operand are ordered so
    (ATen/native/ConvUtils.h); 1D has none."""
    if input.dim() not in (4, 5):
        return "contiguous"
    return "channels_last" if _ordered_channels_last(input) or _ordered_channels_last(weight) else "contiguous"


def _ordered_channels_last(tensor: Tensor) -> bool:
    """c10/core/MemoryFormat.h, is_channels_last_strides: strides grow from C over the spatial dimensions to N; where
    every C x H x W is one element both formats are the same, and torch calls it contiguous."""
    shape, strides = tensor.shape, tensor.stride()
    least = 0
    if strides[1] == 0:
        return False
    for d in (1, *range(tensor.dim() - 1, 1, -1), 0):
        if shape[d] == 0 or strides[d] < least or (d == 0 and least == strides[1]):
            return False
        least = strides[d] * max(1, shape[d])
    return True


def spec_of(
    direction: str,
    input: Tensor,
    weight: Tensor,
    bias: bool,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    activation: str = "none",
) -> ConvSpec:
    """The ConvSpec of a call that torch has accepted."""
    n = input.dim() - 2
    return ConvSpec(
        direction=direction,
        input=tuple(input.shape),
        weight=tuple(weight.shape),
        stride=_spread(stride, n),
        padding=_spread(padding, n),
        dilation=_spread(dilation, n),
        transposed=transposed,
        output_padding=_spread(output_padding, n) if transposed else (),
        groups=groups,
        bias=bias,
        activation=activation,
        dtype=str(input.dtype).removeprefix("torch."),
        memory_format=memory_format_of(input, weight),
        device=input.device.type,
    )


def _spread(values: Any, n: int) -> tuple[int, ...]:
    """torch takes one value for all dimensions or one for each."""
    return tuple(values) * n if len(values) == 1 else tuple(values)


@lru_cache(maxsize=65536)
def accepted(spec: ConvSpec) -> bool:
    """Whether torch takes these shapes and parameters, and gives the shape that the definition says (without input channels
    it gives no output channels either). Its own kernel is asked, on an empty batch: it checks all and computes nothing.
    """
    try:
        options = {"dtype": getattr(torch, spec.dtype), "device": spec.device}
        input = torch.empty((0, *spec.input[1:]), **options)
        bias = torch.empty(spec.out_channels, **options) if spec.bias else None
        arguments = (spec.stride, spec.padding, spec.dilation, spec.transposed, spec.output_padding or (0,) * spec.ndim)
        output = aten.forward_kernel(spec.device)(
            input, torch.empty(spec.weight, **options), bias, *map(list, arguments[:3]), *arguments[3:], spec.groups
        )
    except (RuntimeError, ValueError, IndexError):
        return False
    return tuple(output.shape[1:]) == spec.output[1:]


def run_forward(
    selection: Selection, input: Tensor, weight: Tensor, bias: Tensor | None, save: bool
) -> tuple[Tensor, Tensor | None]:
    """(output, the value before the activation where `save` asks for it)."""
    form = memory_format(selection.spec)
    operands = (input.contiguous(memory_format=form), weight.contiguous(memory_format=form))
    return selection.run(*operands, None if bias is None else bias.contiguous(), save=save)


def run_backward(
    dgrad: Selection | None,
    wgrad: Selection | None,
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    saved: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(grad_input, grad_weight, grad_bias) of the Selections that are given."""
    form = memory_format((dgrad or wgrad).spec)  # type: ignore[union-attr]
    grad_output = grad_output.contiguous(memory_format=form)
    grad_input = grad_weight = grad_bias = None
    if dgrad is not None:
        grad_input = dgrad.run(grad_output, weight.contiguous(memory_format=form), saved)
    if wgrad is not None:
        grad_weight, grad_bias = wgrad.run(grad_output, input.contiguous(memory_format=form), saved)
    return grad_input, grad_weight, grad_bias


_selections: dict[tuple[Any, ...], Selection] = cached_by({})


def selection_of(
    direction: str,
    input: Tensor,
    weight: Tensor,
    bias: bool,
    parameters: tuple[Any, ...],
    activation: str,
    target: str | None,
) -> Selection:
    """The Selection of a call: one look-up in a dictionary when the same call was seen before."""
    lists = (*map(tuple, parameters[:3]), parameters[3], tuple(parameters[4]), parameters[5])
    key = (direction, input.shape, input.stride(), weight.shape, weight.stride(), input.dtype, input.device.type, bias, lists, activation, target)  # fmt: skip
    found = _selections.get(key)
    if found is None:
        spec = spec_of(direction, input, weight, bias, *parameters, activation)
        found = select(spec, target)
        if len(_selections) >= 65536:  # ever new shapes must not grow it without bound
            _selections.clear()
        _selections[key] = found
    return found


def _conv_forward(input: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    *parameters, activation, save, target = rest
    selection = selection_of("fprop", input, weight, bias is not None, tuple(parameters), activation, target)
    output, saved = run_forward(selection, input, weight, bias, save)
    return output, input.new_empty(0) if saved is None else saved


def _conv_backward(
    grad_output: Tensor, input: Tensor, weight: Tensor, saved: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *parameters, activation, (wants_input, wants_weight, wants_bias), target = rest
    shared = (tuple(parameters), activation, target)
    dgrad = selection_of("dgrad", input, weight, False, *shared) if wants_input else None
    wgrad = selection_of("wgrad", input, weight, wants_bias, *shared) if wants_weight or wants_bias else None
    grads = run_backward(dgrad, wgrad, grad_output, input, weight, None if activation == "none" else saved)
    return tuple(input.new_empty(0) if g is None else g for g in grads)  # type: ignore[return-value]  # an op returns no None


for _key in ("CPU", "CUDA", "XLA", "PrivateUse1"):  # the last is that of torch_tpu, or of FPGA boards as a device
    _library.impl("conv_forward", _conv_forward, _key)
    _library.impl("conv_backward", _conv_backward, _key)


def _fake_forward(input: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    *parameters, _activation, save, _target = rest
    output = _aten_convolution(input, weight, bias, *parameters)
    return output, torch.empty_like(output) if save else input.new_empty(0)


def _fake_backward(grad_output: Tensor, input: Tensor, weight: Tensor, saved: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *parameters, _activation, mask, _target = rest
    _stride, _padding, _dilation, transposed, _output_padding, groups = parameters
    bias_sizes = [weight.shape[1] * groups if transposed else weight.shape[0]]
    grads = _aten_convolution_backward(grad_output, input, weight, bias_sizes, *parameters, mask)
    return tuple(input.new_empty(0) if g is None else g for g in grads)


torch.library.register_fake("accelops::conv_forward", _fake_forward, lib=_library)
torch.library.register_fake("accelops::conv_backward", _fake_backward, lib=_library)
_conv_forward_op = torch.ops.accelops.conv_forward.default
_conv_backward_op = torch.ops.accelops.conv_backward.default


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, weight, bias, parameters, activation, target):  # type: ignore[no-untyped-def]
        save = activation in ("silu", "gelu")
        output, saved = _conv_forward_op(input, weight, bias, *parameters, activation, save, target)
        ctx.save_for_backward(input, weight, bias, output if activation == "relu" else saved)
        ctx.rest = parameters, activation, target
        return output

    @staticmethod
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        input, weight, bias, saved = ctx.saved_tensors
        parameters, activation, target = ctx.rest
        mask = list(ctx.needs_input_grad[:3])
        if torch.is_grad_enabled():  # create_graph=True: torch's differentiable formulas
            with torch.enable_grad():
                output = _composition(input, weight, bias, parameters, activation)
            wanted = [t for t, m in zip((input, weight, bias), mask, strict=True) if m]
            grads = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=True))
            return *(next(grads) if m else None for m in mask), None, None, None
        grads = _conv_backward_op(grad_output, input, weight, saved, *parameters, activation, mask, target)
        return *(g if m else None for g, m in zip(grads, mask, strict=True)), None, None, None


def _composition(input: Tensor, weight: Tensor, bias: Tensor | None, parameters: tuple, activation: str) -> Tensor:
    return ACTIVATION_FUNCTIONS[activation](_aten_convolution(input, weight, bias, *parameters))


def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    activation: str = "none",
    target: str | None = None,
) -> Tensor:
    """Convolution, bias and activation, as torch.ops.aten.convolution followed by the activation would give them.

    Shape: input (N, C, *spatial), weight (K, C/groups, *kernel) or, transposed, (C, K/groups, *kernel), bias (K,).
    Raises what torch raises for operands that do not fit, TargetUnavailable where `target` cannot serve."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"conv: activation={activation!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    parameters = (stride, padding, dilation, transposed, output_padding, groups)
    if _functorch_active() or torch.autograd.forward_ad._current_level >= 0:
        return _composition(input, weight, bias, parameters, activation)
    if torch.is_autocast_enabled(input.device.type):
        dtype = torch.get_autocast_dtype(input.device.type)
        input, weight, bias = (t if t is None or not t.is_floating_point() or t.dtype is torch.float64 else t.to(dtype) for t in (input, weight, bias))  # fmt: skip
    if not _uniform(input, weight, bias):
        return _composition(
            input, weight, bias, parameters, activation
        )  # torch has the right error, or the right result
    target = target or asked_target()
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (input, weight, bias)):
        return _Conv.apply(input, weight, bias, parameters, activation, target)
    return _conv_forward_op(input, weight, bias, *parameters, activation, False, target)[0]


def _uniform(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    others = (weight,) if bias is None else (weight, bias)
    return all(t.dtype == input.dtype and t.device == input.device and t.layout == input.layout for t in others)


_library.impl("conv", conv, "CompositeImplicitAutograd")
