"""The dense family: any convolution as matrix products of tiles, a group's apart from another's. It serves what no family
of its own serves better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..spec import ConvSpec
from . import gemm
from .problem import problem


@dataclass(frozen=True)
class Config(gemm.Tile):
    """See gemm.Tile."""


def unsupported(spec: ConvSpec) -> list[str]:
    return gemm.unsupported(spec, problem(spec))


def configs(spec: ConvSpec) -> list[Config]:
    """The first is the one to take unmeasured."""
    return [Config(128, 64, 32), Config(64, 32, 16, line=True)]


def run(config: Config, spec: ConvSpec, *operands: Tensor | None, **options: Any) -> Any:
    """See kernels/conv/native.py: run."""
    return gemm.run(config, spec, problem(spec), *operands, **options)
