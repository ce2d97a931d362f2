"""Convolution by its definition, in fp64: the ground truth (reference.cpp)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import native
from .spec import ConvSpec


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def unsupported(spec: ConvSpec) -> list[str]:
    reasons = []
    if spec.device != "cpu":
        reasons.append(f"runs on cpu tensors, not on {spec.device}")
    if spec.dtype not in ("float32", "float64", "bfloat16", "float16"):
        reasons.append(f"dtype {spec.dtype}: only real floating-point numbers")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    return [Config()]


def run(config: Config, spec: ConvSpec, *operands: Any, **options: Any) -> Any:
    """See native.run."""
    return native.run(plan(config, spec), spec, *operands, **options)


def plan(config: Config, spec: ConvSpec) -> Any:
    """The native kernel bound to `spec`, for callers that need no Python between them."""
    return native.plan(spec, "reference")
