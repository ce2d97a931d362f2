"""Random operands for a BucketSpec, as `run` takes them: for tuning and benchmarks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .spec import MIXED, WIRE_DTYPES, BucketSpec


def operands(spec: BucketSpec, seed: int = 0) -> tuple[Any, ...]:
    """pack (tensors, flat, scale, residual or None); unpack (flat, tensors, scale); reduce (flats, out, scale).

    The tensors are contiguous and of equal length but for the last, which has the rest. The scale is 1, with which
    torch's own kernels need one pass less.
    """
    # On "meta" nothing is drawn: operands have a shape, and no values.
    generator = None if spec.device == "meta" else torch.Generator(spec.device).manual_seed(seed)

    def random(numel: int, dtype: str) -> Tensor:
        return torch.randn(numel, generator=generator, device=spec.device).to(getattr(torch, dtype))

    if spec.direction == "reduce":
        return [random(spec.numel, spec.wire_dtype) for _ in range(spec.ranks)], random(spec.numel, spec.dtype), 1.0
    each = spec.numel // max(spec.tensors, 1)
    lengths = [each] * (spec.tensors - 1) + [spec.numel - each * max(spec.tensors - 1, 0)] * (spec.tensors > 0)
    dtypes = WIRE_DTYPES if spec.dtype == MIXED else (spec.dtype,)
    tensors = [random(n, dtypes[i % len(dtypes)]) for i, n in enumerate(lengths)]
    flat = random(spec.numel, spec.wire_dtype)
    if spec.direction == "unpack":
        return flat, tensors, 1.0
    residual = torch.zeros(spec.numel, device=spec.device) if spec.error_feedback else None
    return tensors, flat, 1.0, residual
