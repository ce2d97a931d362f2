"""Bucketing with torch's own kernels: what runs where nothing is known to be faster, and what all are measured by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .layout import views
from .spec import BucketSpec


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def unsupported(spec: BucketSpec) -> list[str]:
    return []


def configs(spec: BucketSpec) -> list[Config]:
    return [Config()]


def run(config: Config, spec: BucketSpec, *operands: Any) -> None:
    """pack (tensors, flat, scale, residual or None); unpack (flat, tensors, scale); reduce (flats, out, scale)."""
    {"pack": _pack, "unpack": _unpack, "reduce": _reduce}[spec.direction](*operands)


def _pack(tensors: Sequence[Tensor], flat: Tensor, scale: float, residual: Tensor | None) -> None:
    if scale == 1.0 and residual is None:
        _copy(views(flat, tensors), tensors)
        return
    exact = flat if flat.dtype in (torch.float32, torch.float64) else torch.empty_like(flat, dtype=torch.float32)
    if residual is not None and exact is flat:
        exact = torch.empty_like(flat)
    _copy(views(exact, tensors), tensors)
    exact.mul_(scale)
    if residual is None:
        if exact is not flat:
            flat.copy_(exact)
        return
    exact.add_(residual)
    flat.copy_(exact)
    torch.sub(exact, flat, out=residual)
    residual.masked_fill_(flat.isfinite().logical_not_(), 0.0)


def _unpack(flat: Tensor, tensors: Sequence[Tensor], scale: float) -> None:
    _copy(tensors, views(flat if scale == 1.0 else flat.float().mul(scale), tensors))


def _copy(to: Sequence[Tensor], source: Sequence[Tensor]) -> None:
    if to:
        torch._foreach_copy_(to, source)


def _reduce(flats: Sequence[Tensor], out: Tensor, scale: float) -> None:
    total = flats[0].to(torch.float32, copy=True)
    for flat in flats[1:]:
        total.add_(flat)
    out.copy_(total.mul_(scale))
