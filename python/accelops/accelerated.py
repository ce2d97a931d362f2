"""accelops.nn.accelerate: a model made faster in place, with its parameters, state dict and checkpoints as they were.

Every torch.nn.Sequential of the model becomes a Sequential that looks, at each call, for neighbours which it may run as one:
- convolution and activation, where dispatch selects a kernel that fuses them;
- convolution and BatchNorm in eval mode without gradients, folded afresh at each call (nothing to go stale);
- ReLU and MaxPool2d, swapped: the same values and gradients bit for bit, with ReLU on fewer elements.
A chain of layers that treat memory formats alike runs in channels_last, its input converted once and its result back;
parameters keep their strides, so that optimizers made before stay right. Whatever a person could watch (a hook), replace
(a subclass, a parametrization) or compile runs as torch wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as _globals

from accelops import functional
from accelops.dispatch.conv import selection_of
from accelops.dispatch.select import asked_target

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}
_ACTIVATIONS = {nn.ReLU: "relu", nn.SiLU: "silu", nn.GELU: "gelu"}
# These give the same values in both formats. Dropout does not: its random numbers follow the order in memory.
_ANY_FORMAT = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
               nn.AdaptiveMaxPool2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid,
               nn.Tanh, nn.Identity)  # fmt: skip


def accelerate(model: nn.Module) -> nn.Module:
    """Make `model` faster in place and return it; `report` says what it will do. Parameters, buffers, keys of the state
    dict, `isinstance` and hooks stay. What is measured not to win is left to torch. Raises TypeError for no module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: model is a {type(model).__name__}; give a torch.nn.Module")
    for module in model.modules():
        if type(module) is nn.Sequential and "forward" not in module.__dict__:
            module.__class__ = Sequential
    return model


def report(model: nn.Module) -> list[str]:
    """What each accelerated Sequential of `model` may run as one, in its present mode, a line for each."""
    lines = []
    for name, module in model.named_modules():
        if not isinstance(module, Sequential):
            continue
        if _convertible(module):
            lines.append(f"{name or 'model'}: runs in channels_last where its input is on the CPU")
        for start, group in _groups(list(module)):
            if len(group) > 1:
                names = " + ".join(type(m).__name__ for m in group)
                lines.append(f"{name + '.' if name else ''}{start}: {names}")
    return lines


class Sequential(nn.Sequential):
    """torch.nn.Sequential that runs neighbours as one where that is known to be right and faster."""

    def forward(self, input: Tensor) -> Tensor:
        if not _ordinary(input):
            return super().forward(input)
        enters = _enters_channels_last(self, input)
        output = input.contiguous(memory_format=torch.channels_last) if enters else input
        for _, group in _groups(list(self)):
            output = _run(group, output)
        if enters and isinstance(output, Tensor) and output.dim() == 4:
            return output.contiguous()
        return output


def _ordinary(input: object) -> bool:
    return (
        type(input) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def _enters_channels_last(modules: nn.Sequential, input: Tensor) -> bool:
    """Only the CPU was measured. Converting for one convolution loses; a chain of two or more gains 1.2x and up."""
    return input.dim() == 4 and input.device.type == "cpu" and input.is_contiguous() and _convertible(modules)


def _convertible(modules: nn.Sequential) -> bool:
    convolutions = 0
    for module in _flat(modules):
        if type(module) is nn.Flatten and module.start_dim == 1 and module.end_dim == -1:
            break
        if type(module) not in _ANY_FORMAT or not _plain(module):
            return False
        convolutions += isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    return convolutions >= 2


def _flat(modules: nn.Sequential) -> Iterator[nn.Module]:
    for module in modules:
        if type(module) is Sequential and _plain(module):
            yield from _flat(module)
        else:
            yield module


def _plain(module: nn.Module) -> bool:
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


def _groups(modules: list[nn.Module]) -> Iterator[tuple[int, list[nn.Module]]]:
    """(index of the first, neighbours that may run as one)."""
    start = 0
    while start < len(modules):
        end = start + 1
        first = modules[start]
        if _plain(first):
            if type(first) in _CONVOLUTIONS:
                end += _follows(modules, end, (_NORMS[type(first)],)) and not modules[end].training
                end += _follows(modules, end, tuple(_ACTIVATIONS))
            if type(modules[end - 1]) is nn.ReLU and _follows(modules, end, (nn.MaxPool2d,)):
                end += not modules[end].return_indices
        yield start, modules[start:end]
        start = end


def _follows(modules: list[nn.Module], index: int, types: tuple[type, ...]) -> bool:
    return index < len(modules) and type(modules[index]) in types and _plain(modules[index])


def _run(group: list[nn.Module], x: Tensor) -> Tensor:
    if len(group) == 1:
        return group[0](x)
    first, *rest = group
    if type(first) in _CONVOLUTIONS:
        norm = rest.pop(0) if type(rest[0]) in _NORMS.values() else None
        x, fused = _convolve(first, norm, rest[0] if rest else None, x)
        if fused:
            rest = rest[1:]
    else:
        rest = group
    if len(rest) == 2:  # ReLU and pool: max commutes with ReLU, and gradients reach the same elements
        return torch.relu_(rest[1](x))
    return rest[0](x) if rest else x


def _convolve(
    convolution: nn.Module, norm: nn.Module | None, activation: nn.Module | None, x: Tensor
) -> tuple[Tensor, bool]:
    """(the result up to the activation, whether that was applied)."""
    weight, bias = convolution.weight, convolution.bias
    if norm is not None and not _folds(convolution, norm, x):
        return norm(convolution(x)), False
    if norm is not None:
        scale = norm.running_var.add(norm.eps).rsqrt_()
        scale = scale if norm.weight is None else scale * norm.weight
        bias = -norm.running_mean * scale if bias is None else (bias - norm.running_mean) * scale
        bias = bias if norm.bias is None else bias + norm.bias
        weight = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
    name = _ACTIVATIONS.get(type(activation), "none")
    if name == "gelu" and activation.approximate != "none":
        name = "none"
    if name != "none" and _fuses(convolution, weight, bias, name, x):
        call = getattr(functional, f"conv{weight.dim() - 2}d")
        lists = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
        return call(x, weight, bias, *lists, activation=name), True
    return convolution._conv_forward(x, weight, bias) if norm is not None else convolution(x), False


def _folds(convolution: nn.Module, norm: nn.Module, x: Tensor) -> bool:
    """Folding passes over the weight, normalising over the result: fold where the weight is the smaller."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type) or norm.running_mean is None:
        return False
    tensors = (x, convolution.weight, convolution.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if any(t is not None and (t.dtype != x.dtype or t.device != x.device) for t in tensors) or x.dtype not in (torch.float32, torch.float64):  # fmt: skip
        return False
    matches = x.dim() == convolution.weight.dim() and norm.num_features == convolution.out_channels
    pixels = x.numel() // max(1, x.shape[1]) // prod(convolution.stride)
    return matches and pixels > convolution.weight[0].numel()


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
