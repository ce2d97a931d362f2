"""The pointwise family: one tap, stride 1, no padding, so that result and image have the same pixels, and a convolution is a
matrix product of pixels and channels: in channels_last one of all pixels, in contiguous one of each image.

The kernels are those of gemm_kernels.py, the pixels shown to them as one long line: no arithmetic of lines and planes is left.
Operands come through pointers, not through Hopper's tensor descriptors: those hold an address, so the host has to make them
anew for every call. The family boxes does, and serves a single tap too.
Bytes: each tensor once from memory, as far as the caches keep what several tiles read. Flops: 2 per product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import Tensor

from ..problem import Problem, problem
from ..spec import ConvSpec
from . import gemm


@dataclass(frozen=True)
class Config(gemm.Tile):
    """See gemm.Tile."""


def unsupported(spec: ConvSpec) -> list[str]:
    reasons = gemm.unsupported(spec, problem(spec))
    for name, only in (("kernel", 1), ("stride", 1), ("padding", 0)):
        if set(getattr(spec, name)) != {only}:
            reasons.append(f"{name}={getattr(spec, name)}: only {only}")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """The first is the one to take unmeasured."""
    p = _one_line(problem(spec))
    tiles = [
        Config(128, 128, 64, num_warps=8),
        Config(128, 64, 64, num_warps=8),
        Config(64, 64, 64),
        Config(64, 32, 64),
    ]
    if gemm.slope(spec):  # another tile, of saved values
        tiles = [replace(tile, block_k=32, num_stages=4) for tile in tiles]
    found = gemm.fitted(tiles, spec, p)
    if p.channels_last:
        return [replace(tile, line=True) for tile in found]
    return gemm.along_lines(found, p) + found[:2]


def run(config: Config, spec: ConvSpec, *operands: Tensor | None, **options: Any) -> Any:
    """See kernels/conv/native.py: run."""
    return gemm.run(config, spec, _one_line(problem(spec)), *operands, **options)


def _one_line(p: Problem) -> Problem:
    """The same in memory, each image's pixels in a line, and in channels_last all images' pixels in the line of one."""
    pixels = prod(p.image)
    n, pixels = (1, p.n * pixels) if p.channels_last else (p.n, pixels)
    return replace(p, n=n, image=(1, 1, pixels), result=(1, 1, pixels))
