"""Adam in one vectorised pass over all parameters together (cpu.cpp)."""

from __future__ import annotations

from dataclasses import dataclass

from . import native
from .lists import Hyper, Lists
from .spec import AdamSpec


@dataclass(frozen=True)
class Config:
    """Nothing to choose: memory sets the pace."""


def unsupported(spec: AdamSpec) -> list[str]:
    return native.unsupported(spec, ("float32", "bfloat16", "float16", "complex64"))


def configs(spec: AdamSpec) -> list[Config]:
    return [Config()]


def heuristic(spec: AdamSpec) -> tuple[Config | None, str]:
    return (
        Config(),
        "one pass over all parameters together beats torch's pass per tensor (benchmarks/results/adam.json)",
    )


def run(config: Config, spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
    """See native.run."""
    native.run("cpu", spec, lists, hyper)
