"""Bucketing by its definition, in fp64: the ground truth (reference.cpp)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import native
from .spec import BucketSpec


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def unsupported(spec: BucketSpec) -> list[str]:
    return native.unsupported(spec)


def configs(spec: BucketSpec) -> list[Config]:
    return [Config()]


def run(config: Config, spec: BucketSpec, *operands: Any) -> None:
    """See native.run."""
    native.run("reference", False, spec, *operands)
