"""Bucketing on TPUs (lowering.py), run by way of torch_xla or torch_tpu, or by jax itself on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from accelops.targets import xla

from ..layout import layout
from ..spec import MIXED, WIRE_DTYPES, BucketSpec
from .lowering import Kinds, lowered


@dataclass(frozen=True)
class Config:
    """Nothing to choose: memory sets the pace."""


def unsupported(spec: BucketSpec) -> list[str]:
    reasons = []
    if spec.device not in xla.devices():
        reasons.append(f"runs on {xla.devices()[0]} tensors, not on {spec.device}")
    if spec.dtype not in (*WIRE_DTYPES, MIXED):
        reasons.append(f"dtype {spec.dtype}: tensors are {', '.join(WIRE_DTYPES)}")
    if spec.wire_dtype not in WIRE_DTYPES:
        reasons.append(f"wire_dtype {spec.wire_dtype}: a wire is {', '.join(WIRE_DTYPES)}")
    return reasons


def configs(spec: BucketSpec) -> list[Config]:
    return [Config()]


def heuristic(spec: BucketSpec) -> tuple[None, str]:
    return None, "no TPU has measured it yet; accelops.tune measures it on this one"


def run(config: Config, spec: BucketSpec, *operands: Any) -> None:
    """pack (tensors, flat, scale, residual or None); unpack (flat, tensors, scale); reduce (flats, out, scale)."""
    if spec.numel:
        {"pack": _pack, "unpack": _unpack, "reduce": _reduce}[spec.direction](spec, *operands)


def _pack(spec: BucketSpec, tensors: Sequence[Tensor], flat: Tensor, scale: float, residual: Tensor | None) -> None:
    places = zip(tensors, layout(tensors).places, strict=True)
    lines = [_line(t) if place.dense else t.reshape(-1) for t, place in places if place.numel]
    sent, lost = _program(spec)(lines, _kept(scale, flat.device), residual)
    flat.copy_(sent)
    if residual is not None:
        residual.copy_(lost)


def _unpack(spec: BucketSpec, flat: Tensor, tensors: Sequence[Tensor], scale: float) -> None:
    places = layout(tensors).places
    parts = _program(spec, tuple((place.numel, place.dtype) for place in places))(flat, _kept(scale, flat.device))
    for tensor, place, part in zip(tensors, places, parts, strict=True):
        if place.dense:
            _line(tensor).copy_(part)
        else:
            tensor.copy_(part.view(tensor.shape))


def _reduce(spec: BucketSpec, flats: Sequence[Tensor], out: Tensor, scale: float) -> None:
    out.copy_(_program(spec)(list(flats), _kept(scale, out.device)))


def _line(tensor: Tensor) -> Tensor:
    """The elements of a dense tensor in the order of its memory."""
    return tensor.view(-1) if tensor.is_contiguous() else tensor.as_strided((tensor.numel(),), (1,))


@lru_cache(maxsize=256)
def _program(spec: BucketSpec, kinds: Kinds = ()) -> Callable[..., Any]:
    return xla.program(spec.device, lowered(spec, kinds))


@lru_cache(maxsize=64)
def _kept(scale: float, device: torch.device) -> Tensor | None:
    return None if scale == 1.0 else torch.tensor(scale, dtype=torch.float32, device="cpu").to(device)
