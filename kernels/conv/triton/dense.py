"""The dense family: any convolution as matrix products of tiles, a group's apart from another's. It serves what no family
of its own serves better."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..problem import problem
from ..spec import ConvSpec
from . import gemm


@dataclass(frozen=True)
class Config(gemm.Tile):
    """See gemm.Tile."""


def unsupported(spec: ConvSpec) -> list[str]:
    return gemm.unsupported(spec, problem(spec))


def configs(spec: ConvSpec) -> list[Config]:
    """The first is the one to take unmeasured."""
    p = problem(spec)
    tiles = [
        Config(128, 128, 64, num_warps=8),
        Config(128, 64, 64, num_warps=8),
        Config(64, 128, 64, num_warps=8),
        Config(64, 64, 64),
        Config(64, 32, 64),
    ]
    # Saved values are another tile, and in contiguous pixels come one by one: for what is then left of the registers.
    if gemm.slope(spec) or not p.channels_last:
        tiles = [replace(tile, block_k=32, num_stages=4) for tile in tiles]
    if not p.channels_last:
        tiles = tiles[1:]
    found = gemm.fitted(tiles, spec, p)
    return found + gemm.along_lines(found[:2], p)


def run(config: Config, spec: ConvSpec, *operands: Tensor | None, **options: Any) -> Any:
    """See kernels/conv/native.py: run."""
    return gemm.run(config, spec, problem(spec), *operands, **options)
