"""accelops.nn.accelerate: a model made faster in place, with its parameters, state dict and checkpoints as they were.

Every torch.nn.Sequential of the model becomes a Sequential that looks, at each call, for neighbours which it may run as one:
- a convolution with its BatchNorm in eval mode and its activation (joining.py);
- ReLU and MaxPool2d, swapped: the same values and gradients bit for bit, with ReLU on fewer elements.
The first kind is found in other modules too, in eval mode, by tracing their forward (traced.py). A chain of layers that treat
memory formats alike runs in channels_last, its input converted once and its result back; with `memory_format`, every
convolution of the model converts its input where that has another format (members.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .joining import FORMAT_OF_DIM, NORMS, convolve, group, kind, ordinary, plain
from .members import FORMATS, set_format
from .traced import Traced, candidate, find, join

# These give the same values in both formats. Dropout does not: its random numbers follow the order in memory.
_ANY_FORMAT = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
               nn.AdaptiveMaxPool2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid,
               nn.Tanh, nn.Identity)  # fmt: skip


def accelerate(model: nn.Module, memory_format: torch.memory_format | None = None) -> nn.Module:
    """Make `model` faster in place and return it; `report` says what it will do. Parameters (their strides too), buffers,
    keys of the state dict, `isinstance` and hooks stay. What is measured not to win is left to torch.

    `memory_format`: torch.channels_last or, for 3D convolutions, torch.channels_last_3d runs the whole model in it, whatever
    the format of its input; as with `model.to(memory_format=...)`, what leaves the model may have it, and dropout draws
    other elements. None converts only chains where nothing outside can tell. Raises TypeError for no module, ValueError for
    another format."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: model is a {type(model).__name__}; give a torch.nn.Module")
    if memory_format is not None and memory_format not in FORMATS:
        known = " or ".join(map(str, FORMATS))
        raise ValueError(f"accelerate: memory_format={memory_format} is no format to convert to; give {known}, or None")
    for module in model.modules():
        if "forward" in module.__dict__:
            continue
        if memory_format is not None:
            set_format(module, memory_format)
        if type(module) is nn.Sequential:
            module.__class__ = Sequential
        elif not isinstance(module, (Sequential, Traced)) and candidate(module):
            join(module, find(module)[0])
    return model


def report(model: nn.Module) -> list[str]:
    """What each module of `model` may run as one, in its present mode, a line for each; and why others run as they are."""
    converting = [m for m in model.modules() if getattr(m, "converts_input", False)]
    convert = Counter(str(FORMAT_OF_DIM[m.weight.dim()]) for m in converting)
    lines = [f"model: {count} convolutions convert their input to {form}" for form, count in convert.items()]
    for name, module in model.named_modules():
        groups: list[tuple[str, list[nn.Module]]] = []
        if isinstance(module, Sequential):
            if _convertible(module):
                lines.append(f"{name or 'model'}: runs in channels_last where its input is on the CPU")
            groups = [(str(start), modules) for start, modules in _groups(list(module)) if len(modules) > 1]
        elif isinstance(module, Traced):
            groups = [(names[0], modules) for names, modules in module.groups_now()]
        elif candidate(module) and (reason := find(module)[1]):
            lines.append(f"{name or 'model'}: as it was, for torch.fx cannot follow its forward: {reason}")
        prefix = f"{name}." if name else ""
        lines += [f"{prefix}{first}: {' + '.join(kind(m).__name__ for m in modules)}" for first, modules in groups]
    return lines


class Sequential(nn.Sequential):
    """torch.nn.Sequential that runs neighbours as one where that is known to be right and faster."""

    def forward(self, input: Tensor) -> Tensor:
        if not ordinary(input):
            return super().forward(input)
        enters = _enters_channels_last(self, input)
        output = input.contiguous(memory_format=torch.channels_last) if enters else input
        for _, modules in _groups(list(self)):
            output = _run(modules, output)
        if enters and isinstance(output, Tensor) and output.dim() == 4:
            return output.contiguous()
        return output


def _enters_channels_last(modules: nn.Sequential, input: Tensor) -> bool:
    """Only the CPU was measured. Converting for one convolution loses; a chain of two or more gains 1.2x and up."""
    return input.dim() == 4 and input.device.type == "cpu" and input.is_contiguous() and _convertible(modules)


def _convertible(modules: nn.Sequential) -> bool:
    convolutions = 0
    for module in _flat(modules):
        if type(module) is nn.Flatten and module.start_dim == 1 and module.end_dim == -1:
            break
        if type(module) not in _ANY_FORMAT or not plain(module):
            return False
        convolutions += isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    return convolutions >= 2


def _flat(modules: nn.Sequential) -> Iterator[nn.Module]:
    for module in modules:
        if type(module) is Sequential and plain(module):
            yield from _flat(module)
        else:
            yield module


def _groups(modules: list[nn.Module]) -> Iterator[tuple[int, list[nn.Module]]]:
    """(index of the first, neighbours that may run as one)."""
    start = 0
    while start < len(modules):
        end = start + max(1, group(modules[start:]))
        ends_in_relu = kind(modules[end - 1]) is nn.ReLU and plain(modules[end - 1])
        if ends_in_relu and end < len(modules) and type(modules[end]) is nn.MaxPool2d and plain(modules[end]):
            end += not modules[end].return_indices
        yield start, modules[start:end]
        start = end


def _run(modules: list[nn.Module], x: Tensor) -> Tensor:
    if len(modules) == 1:
        return modules[0](x)
    if kind(modules[0]) in NORMS:
        pool = [m for m in modules[-1:] if type(m) is nn.MaxPool2d]
        following = modules[1 : len(modules) - len(pool)]
        x, joined = convolve(modules[0], following, x)
        modules = [*following[joined:], *pool]
    swaps = len(modules) > 1 and type(modules[-1]) is nn.MaxPool2d
    for module in [*modules[:-2], modules[-1]] if swaps else modules:
        x = module(x)
    return torch.relu_(x) if swaps else x  # max commutes with ReLU, and gradients reach the same elements
