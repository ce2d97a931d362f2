"""The dense family: any convolution as matrix products of tiles, a group's apart from another's. It serves what no family
of its own serves better."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    p = problem(spec)
    if spec.direction != "wgrad" and not p.channels_last:
        # Pixels at any distance come one by one through registers, which larger tiles of them would spill.
        tiles = [
            Config(128, 64, 32, num_warps=8),
            Config(64, 64, 32),
            Config(64, 128, 32, num_warps=8),
            Config(64, 32, 32),
        ]
    else:
        tiles = [
            Config(128, 128, 64, num_warps=8),
            Config(128, 64, 64, num_warps=8),
            Config(64, 64, 64, num_stages=4),
            Config(64, 32, 64),
        ]
    if spec.dtype == "float32":
        tiles = [replace(tile, block_k=tile.block_k // 2) for tile in tiles]
    found = gemm.fitted(tiles, spec, p)
    return found + gemm.along_lines(found[:2], p)


def run(config: Config, spec: ConvSpec, *operands: Tensor | None, **options: Any) -> Any:
    """See kernels/conv/native.py: run."""
    return gemm.run(config, spec, problem(spec), *operands, **options)
