"""Where tensors lie in a flat buffer: one after the other without gaps, as in DDP's buckets.

A tensor whose elements are dense in memory (contiguous, channels_last, any permutation of these) lies there in its memory
order, so that it moves as one run; any other in logical order. Lists of the same strides therefore have the same layout.
Layout answers as BucketLayout of layout.cpp does, where there is no native extension to ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from ..spec import ITEMSIZE

Extents = tuple[tuple[torch.Size, tuple[int, ...], torch.dtype], ...]


def extents(tensors: Sequence[Tensor]) -> Extents:
    """All of the tensors that their layout depends on: shapes, strides and dtypes."""
    return tuple([(t.shape, t.stride(), t.dtype) for t in tensors])


def addresses(tensors: Sequence[Tensor]) -> list[int]:
    return [t.data_ptr() for t in tensors]


def flat_strides(tensor: Tensor) -> tuple[int, ...]:
    """Strides of the tensor's place in the buffer: its own where it is dense, else those of a contiguous one."""
    if tensor.is_contiguous() or _nested(_steps(tensor.shape, tensor.stride()), exactly=True):
        return tensor.stride()
    return torch.empty(tensor.shape, device="meta").stride()


def views(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The place of each tensor in `flat` (1D, of any dtype), with the tensor's shape."""
    places = []
    begin = flat.storage_offset()
    for tensor in tensors:
        places.append(flat.as_strided(tensor.shape, flat_strides(tensor), begin))
        begin += tensor.numel()
    return places


@dataclass(frozen=True)
class Place:
    """One tensor of a list: `numel` elements of the buffer, from `begin` on; in memory they span `span` bytes, in `steps`
    of (stride, size), the longest first, and are `dense` where they leave no gap there."""

    begin: int
    numel: int
    dtype: str
    steps: tuple[tuple[int, int], ...]
    span: int
    dense: bool


@dataclass(frozen=True, eq=False)
class Layout:
    """`places` of a list's tensors, in its order."""

    places: tuple[Place, ...]

    def overlap(self, addresses: Sequence[int]) -> tuple[int, int]:
        """Two tensors of the list that share an element (the same one twice: two of its own), or (-1, -1). Exact: views
        that interleave, such as the even and the odd columns, are told from views that overlap."""
        spans = [(a, a + p.span, i) for i, (a, p) in enumerate(zip(addresses, self.places, strict=True)) if p.numel]
        spans.sort()
        first = 0
        while first < len(spans):
            end, after = spans[first][1], first + 1
            while after < len(spans) and spans[after][0] < end:
                end = max(end, spans[after][1])
                after += 1
            met = [i for _, _, i in spans[first:after]]
            if len(met) > 1 or not _nested(self.places[met[0]].steps, exactly=False):
                pair = self._shared(met, addresses)
                if pair is not None:
                    return pair
            first = after
        return -1, -1

    def entangled(self, addresses: Sequence[int], flat: int, bytes: int, wire: str) -> int:
        """The first tensor that shares memory with the `bytes` at `flat` otherwise than by being its own place there, as
        DDP's gradients may be (gradient_as_bucket_view); or -1."""
        for i, (address, p) in enumerate(zip(addresses, self.places, strict=True)):
            if p.numel and address < flat + bytes and flat < address + p.span:
                own_place = p.dense and p.dtype == wire and address == flat + p.begin * ITEMSIZE[wire]
                if not own_place:
                    return i
        return -1

    def _shared(self, tensors: Sequence[int], addresses: Sequence[int]) -> tuple[int, int] | None:
        """Two owners of one address, found among all stretches of memory that the tensors cover."""
        begins, ends, owners = [], [], []
        for i in tensors:
            p = self.places[i]
            run = p.steps[-1][1] if p.steps and p.steps[-1][0] == 1 else 1  # elements side by side are one stretch
            offsets = torch.zeros(1, dtype=torch.int64, device="cpu")
            for stride, size in p.steps[:-1] if run > 1 else p.steps:
                offsets = (offsets[:, None] + stride * torch.arange(size, device="cpu")).view(-1)
            begins.append(addresses[i] + offsets * ITEMSIZE[p.dtype])
            ends.append(begins[-1] + run * ITEMSIZE[p.dtype])
            owners.append(torch.full_like(offsets, i))
        begin, order = torch.cat(begins).sort()
        end, owner = torch.cat(ends)[order], torch.cat(owners)[order]
        meet = (begin[1:] < end[:-1]).nonzero()
        if not len(meet):
            return None
        first, second = sorted(owner[int(meet[0]) :][:2].tolist())
        return first, second


def layout(tensors: Sequence[Tensor]) -> Layout:
    """The layout of these tensors; kept, since the lists of a training step differ in their addresses alone."""
    return _layout(extents(tensors))


@lru_cache(maxsize=256)
def _layout(kinds: Extents) -> Layout:
    begin, places = 0, []
    for shape, strides, dtype in kinds:
        numel, steps = prod(shape), _steps(shape, strides)
        span = (1 + sum((size - 1) * stride for stride, size in steps)) * dtype.itemsize
        dense = numel == 0 or _nested(steps, exactly=True)
        places.append(Place(begin, numel, str(dtype).removeprefix("torch."), steps, span, dense))
        begin += numel
    return Layout(tuple(places))


def _steps(shape: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(((t, s) for t, s in zip(strides, shape, strict=True) if s != 1), reverse=True))


def _nested(steps: Sequence[tuple[int, int]], exactly: bool) -> bool:
    """Whether every step goes over all that the shorter ones span; `exactly`: and over no more."""
    span = 1
    for stride, size in reversed(steps):
        if stride != span if exactly else stride < span:
            return False
        span = span * size if exactly else span + (size - 1) * stride
    return True
