"""Runs the C++ bucket kernels (kernels/bucket/reference.cpp and cpu.cpp) on torch tensors: the `run` of both targets.

Operands are checked by dispatch: on the CPU, buffers 1D and contiguous and as long as their tensors, nothing overlapping.
The layout of a list is worked out once per list of shapes, strides and dtypes; the addresses are read at each call, since
a training step may give a gradient new memory (8 us for 161 tensors).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from accelops import _native

from .layout import Extents, addresses, extents
from .spec import MIXED, WIRE_DTYPES, BucketSpec


@lru_cache(maxsize=256)
def _layout(kinds: Extents) -> _native.BucketLayout:
    sizes, strides, dtypes = zip(*kinds, strict=True) if kinds else ((), (), ())
    return _native.BucketLayout(sizes, strides, [_name(dtype) for dtype in dtypes])


@lru_cache(maxsize=64)
def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def layout(tensors: Sequence[Tensor]) -> _native.BucketLayout:
    """The layout of these tensors. Raises ValueError for a dtype without a native kernel."""
    return _layout(extents(tensors))


def unsupported(spec: BucketSpec) -> list[str]:
    reasons = []
    if spec.device != "cpu":
        reasons.append(f"runs on cpu tensors, not on {spec.device}")
    if spec.dtype not in (*WIRE_DTYPES, MIXED):
        reasons.append(f"dtype {spec.dtype}: tensors are {', '.join(WIRE_DTYPES)}")
    if spec.wire_dtype not in WIRE_DTYPES:
        reasons.append(f"wire_dtype {spec.wire_dtype}: a wire is {', '.join(WIRE_DTYPES)}")
    return reasons


def run(target: str, stream: bool, spec: BucketSpec, *operands: Any) -> None:
    """pack (tensors, flat, scale, residual or None); unpack (flat, tensors, scale); reduce (flats, out, scale)."""
    threads = torch.get_num_threads()
    if spec.direction == "pack":
        tensors, flat, scale, residual = operands
        kept = 0 if residual is None else residual.data_ptr()
        where = (addresses(tensors), flat.data_ptr(), spec.wire_dtype, kept)
        layout(tensors).pack(target, *where, scale, stream, threads)
    elif spec.direction == "unpack":
        flat, tensors, scale = operands
        where = (addresses(tensors), flat.data_ptr(), spec.wire_dtype)
        layout(tensors).unpack(target, *where, scale, stream, threads)
    else:
        flats, out, scale = operands
        where = (addresses(flats), spec.numel, spec.wire_dtype, out.data_ptr(), spec.dtype)
        _native.bucket_reduce(target, *where, scale, stream, threads)
