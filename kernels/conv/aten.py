"""torch's own convolution as an implementation: the kernels that torch had registered before anyone overrode them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .spec import ConvSpec
from .tensors import empty

_aten = torch.ops.aten


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def unsupported(spec: ConvSpec) -> list[str]:
    return []


def configs(spec: ConvSpec) -> list[Config]:
    return [Config()]


@cache
def forward_kernel(device: str) -> Callable[..., Tensor]:
    """The aten::convolution that was in force on a device type ("cpu", "cuda") when this was first called."""
    return _kernel("convolution", device)


@cache
def backward_kernel(device: str) -> Callable[..., tuple[Tensor | None, ...]]:
    """The same for aten::convolution_backward."""
    return _kernel("convolution_backward", device)


def _kernel(name: str, device: str) -> Callable[..., Any]:
    if device == "fpga":  # no one overrides it there; what the board does not do it sends to the CPU itself
        return getattr(_aten, name).default
    if hasattr(torch.library, "get_kernel"):
        key = "PrivateUse1" if device == "tpu" else device.upper()
        kernel = torch.library.get_kernel(f"aten::{name}", key)
        keyset = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))
        return lambda *arguments: kernel.call_boxed(keyset, *arguments)
    # Before torch 2.10: both ops have one kernel for all devices, still to be reached at a key that no one overrides.
    op, elsewhere = getattr(_aten, name).default, torch._C.DispatchKeySet(torch._C.DispatchKey.PrivateUse3)
    return lambda *arguments: op.redispatch(elsewhere, *arguments)


def run(
    config: Config,
    spec: ConvSpec,
    first: Tensor,
    second: Tensor,
    third: Tensor | None = None,
    save: bool = False,
) -> Any:
    """See native.run; a fused activation is torch's own op after or before the convolution."""
    parameters = _parameters(spec)
    if spec.direction == "fprop":
        before = forward_kernel(spec.device)(first, second, third, *parameters)
        return activated(spec.activation, before, in_place=not save), before if save else None
    grad_output = through_activation(spec.activation, first, third)
    backward = backward_kernel(spec.device)
    if spec.direction == "dgrad":
        input = empty(spec, spec.input)  # only its shape and format are looked at
        return backward(grad_output, input, second, None, *parameters, (True, False, False))[0]
    bias_sizes = [spec.out_channels] if spec.bias else None
    weight = empty(spec, spec.weight)
    return backward(grad_output, second, weight, bias_sizes, *parameters, (False, True, spec.bias))[1:]


def _parameters(spec: ConvSpec) -> tuple[Any, ...]:
    output_padding = spec.output_padding or (0,) * spec.ndim
    return spec.stride, spec.padding, spec.dilation, spec.transposed, output_padding, spec.groups


def activated(activation: str, x: Tensor, in_place: bool) -> Tensor:
    if activation == "relu":
        return x.relu_() if in_place else x.relu()
    if activation == "silu":
        return torch.nn.functional.silu(x, inplace=in_place)
    return torch.nn.functional.gelu(x) if activation == "gelu" else x


def through_activation(activation: str, grad: Tensor, saved: Tensor | None) -> Tensor:
    if activation == "relu":
        return _aten.threshold_backward(grad, saved, 0)
    if activation == "silu":
        return _aten.silu_backward(grad, saved)
    return _aten.gelu_backward(grad, saved) if activation == "gelu" else grad
