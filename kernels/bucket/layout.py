"""Where tensors lie in a flat buffer: one after the other without gaps, as in DDP's buckets.

A tensor whose elements are dense in memory (contiguous, channels_last, any permutation of these) lies there in its memory
order, so that it moves as one run; any other in logical order. Lists of the same strides therefore have the same layout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def flat_strides(tensor: Tensor) -> tuple[int, ...]:
    """Strides of the tensor's place in the buffer: its own where it is dense, else those of a contiguous one."""
    strides = tensor.stride()
    if tensor.is_contiguous():
        return strides
    span = 1
    for stride, size in sorted((t, s) for t, s in zip(strides, tensor.shape, strict=True) if s != 1):
        if stride != span:
            return torch.empty(tensor.shape, device="meta").stride()
        span *= size
    return strides


def views(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The place of each tensor in `flat` (1D, of any dtype), with the tensor's shape."""
    places = []
    begin = flat.storage_offset()
    for tensor in tensors:
        places.append(flat.as_strided(tensor.shape, flat_strides(tensor), begin))
        begin += tensor.numel()
    return places
