"""torch's side of a ConvSpec: its memory format and tensors in it."""

from __future__ import annotations

import torch
from torch import Tensor

from .spec import ConvSpec


def memory_format(spec: ConvSpec) -> torch.memory_format:
    if spec.memory_format == "contiguous":
        return torch.contiguous_format
    return torch.channels_last if spec.ndim == 2 else torch.channels_last_3d


def empty(spec: ConvSpec, shape: tuple[int, ...]) -> Tensor:
    """An uninitialised tensor of the spec's dtype, memory format and device."""
    return torch.empty(shape, dtype=getattr(torch, spec.dtype), device=spec.device, memory_format=memory_format(spec))
