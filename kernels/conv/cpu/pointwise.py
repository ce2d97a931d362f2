"""The pointwise family: which Specs pointwise.cpp serves, with which blocks, and where it was measured faster than torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..spec import ConvSpec


@dataclass(frozen=True)
class Config:
    """`block_kib`: KiB of pixels, all their source channels, that are packed at a time in fprop and dgrad."""

    block_kib: int = 384


def unsupported(spec: ConvSpec) -> list[str]:
    reasons = []
    if spec.device != "cpu":
        reasons.append(f"runs on cpu tensors, not on {spec.device}")
    if spec.dtype != "float32":
        reasons.append(f"dtype {spec.dtype}: only float32")
    if spec.transposed:
        reasons.append("transposed convolution")
    if spec.groups != 1:
        reasons.append(f"groups={spec.groups}: only 1")
    if prod(spec.kernel) != 1:
        reasons.append(f"kernel {spec.kernel}: only 1 in every dimension")
    if any(spec.padding):
        reasons.append(f"padding {spec.padding}: only 0")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """Blocks of pixels of an eighth to half of a megabyte of L2 cache; the weight gradient has nothing to choose."""
    return [Config()] if spec.direction == "wgrad" else [Config(384), Config(128), Config(512)]


def heuristic(spec: ConvSpec) -> tuple[Config | None, str]:
    return None, ""
