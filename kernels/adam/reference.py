"""Adam by its definition, in fp64: the ground truth (reference.cpp)."""

from __future__ import annotations

from dataclasses import dataclass

from . import native
from .lists import Hyper, Lists
from .spec import AdamSpec


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def unsupported(spec: AdamSpec) -> list[str]:
    return native.unsupported(spec, ("float32", "float64", "bfloat16", "float16", "complex64", "complex128"))


def configs(spec: AdamSpec) -> list[Config]:
    return [Config()]


def run(config: Config, spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
    """See native.run."""
    native.run("reference", spec, lists, hyper)
