"""Which neighbours of a network may run as one, and the convolution that computes them.

A group is a convolution and what follows it: BatchNorm in eval mode, folded into the weight afresh at each call (nothing to
go stale), and an activation, applied by the kernel where dispatch selects one that fuses it. Folding costs a pass over the
weight and saves one over the result. Whatever a person could watch (a hook), replace (a subclass, a parametrization) or
compile is no part of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as _globals

from accelops import functional
from accelops.dispatch.conv import selection_of
from accelops.dispatch.select import asked_target

NORMS = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}
ACTIVATIONS = {nn.ReLU: "relu", nn.SiLU: "silu", nn.GELU: "gelu"}
FORMAT_OF_DIM = {4: torch.channels_last, 5: torch.channels_last_3d}
least_result = 1 << 18  # elements; below, folding costs what it saves (RegNet); 2**17 to 2**19 serve alike
torchs_class: dict[type[nn.Module], type[nn.Module]] = {}  # of each class that accelerate puts in its place


def kind(module: nn.Module) -> type[nn.Module]:
    """Its class in torch.nn where it is exactly that, or ours in its place."""
    return torchs_class.get(type(module), type(module))


def ordinary(input: object) -> bool:
    """A tensor in a plain eager call: not compiled, traced or transformed."""
    return (
        type(input) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def plain(module: nn.Module) -> bool:
    """No hook, no forward of its own, not compiled: calling it is calling its class's forward."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _globals._has_any_global_hook()
        or "forward" in module.__dict__
        or module._compiled_call_impl is not None
    )


def group(modules: Sequence[nn.Module]) -> int:
    """How many of `modules`, a convolution and what follows it, may run as one in their present mode; 0 where the first
    is no plain convolution."""
    if not modules or kind(modules[0]) not in NORMS or not plain(modules[0]):
        return 0
    length = 1
    length += _is(modules, length, (NORMS[kind(modules[0])],)) and not modules[length].training
    return length + _is(modules, length, tuple(ACTIVATIONS))


def _is(modules: Sequence[nn.Module], index: int, kinds: tuple[type[nn.Module], ...]) -> bool:
    return index < len(modules) and kind(modules[index]) in kinds and plain(modules[index])


def enter(convolution: nn.Module, x: Tensor) -> Tensor:
    """`x` in the memory format to which accelerate lets the convolution convert, if any. Unbatched input stays as it is."""
    if not getattr(convolution, "converts_input", False) or x.dim() != convolution.weight.dim():
        return x
    return x.contiguous(memory_format=FORMAT_OF_DIM[x.dim()])


def convolve(convolution: nn.Module, following: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, int]:
    """The result of `convolution` and of as many of `following` (the rest of its group) as win by joining it; how many."""
    x, weight, bias, joined = enter(convolution, x), convolution.weight, convolution.bias, 0
    if following and kind(following[0]) in NORMS.values():
        if not _folds(convolution, following[0], x):
            return convolution._conv_forward(x, weight, bias), 0
        weight, bias = _folded(weight, bias, following[0])
        joined = 1
    name = "none"
    if len(following) > joined:
        activation = following[joined]
        name = ACTIVATIONS[kind(activation)]
        exact = name != "gelu" or activation.approximate == "none"
        if exact and _fuses(convolution, weight, bias, name, x):
            call = getattr(functional, f"conv{weight.dim() - 2}d")
            lists = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
            return call(x, weight, bias, *lists, activation=name), joined + 1
    output = convolution._conv_forward(x, weight, bias)
    if joined and name == "relu":  # on a fresh result that nobody else sees: no second one to allocate
        return torch.relu_(output), 2
    return output, joined


def _folded(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    scale = norm.running_var.add(norm.eps).rsqrt_()
    scale = scale if norm.weight is None else scale * norm.weight
    bias = -norm.running_mean * scale if bias is None else (bias - norm.running_mean) * scale
    return weight * scale.view(-1, *(1,) * (weight.dim() - 1)), bias if norm.bias is None else bias + norm.bias


def _folds(convolution: nn.Module, norm: nn.Module, x: Tensor) -> bool:
    """Folding passes over the weight, normalising over the result: fold where the weight is the smaller."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type) or norm.running_mean is None:
        return False
    tensors = (x, convolution.weight, convolution.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if any(t is not None and (t.dtype != x.dtype or t.device != x.device) for t in tensors) or x.dtype not in (torch.float32, torch.float64):  # fmt: skip
        return False
    if norm.num_features != convolution.out_channels or not large(convolution, x):
        return False
    return _pixels(convolution, x) > convolution.weight[0].numel()


def large(convolution: nn.Module, x: Tensor) -> bool:
    """Whether the result is worth the bookkeeping: without this RegNet in eval, 4 images, took 1.14x of the time."""
    return x.dim() == convolution.weight.dim() and _pixels(convolution, x) * convolution.out_channels >= least_result


def _pixels(convolution: nn.Module, x: Tensor) -> int:
    """Of the result, about."""
    return x.numel() // max(1, x.shape[1]) // prod(convolution.stride)


def _fuses(convolution: nn.Module, weight: Tensor, bias: Tensor | None, activation: str, x: Tensor) -> bool:
    """Where kernels of ours serve all the directions that will run; torch's own would pass over the result once more."""
    padding = convolution.padding
    if convolution.padding_mode != "zeros" or isinstance(padding, str) or x.dim() != weight.dim():
        return False
    if torch.is_autocast_enabled(x.device.type) or asked_target() is not None:
        return False
    if x.shape[1] != convolution.in_channels or x.dtype != weight.dtype or x.device != weight.device:
        return False
    parameters = (convolution.stride, padding, convolution.dilation, False, (0,) * len(padding), convolution.groups)
    directions = ["fprop"]
    if torch.is_grad_enabled():
        directions += ["dgrad"] * x.requires_grad + ["wgrad"] * weight.requires_grad
    return all(
        selection_of(d, x, weight, bias is not None and d != "dgrad", parameters, activation, None).target != "aten"
        for d in directions
    )
