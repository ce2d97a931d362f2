"""The grouped family: several groups of few channels, each a small matrix product over taps and channels, computed side by
side as a batch, since in channels_last their channels share cache lines and in contiguous they share the pixels' arithmetic.

Bytes and flops: see gemm_flat_kernels.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import triton
from torch import Tensor

from ..problem import problem
from ..spec import ConvSpec
from . import gemm

# A group of more channels fills matrix products by itself.
MOST_CHANNELS = 32


@dataclass(frozen=True)
class Config(gemm.Flat):
    """See gemm.Flat."""


def unsupported(spec: ConvSpec) -> list[str]:
    p = problem(spec)
    reasons = gemm.unsupported(spec, p)
    if p.groups == 1:
        reasons.append("groups=1: there are no groups to compute side by side")
    elif p.c == p.k == p.groups:
        reasons.append("one channel in a group: its products are of numbers, not of matrices")
    elif max(p.c, p.k) // p.groups > MOST_CHANNELS:
        reasons.append(f"{max(p.c, p.k) // p.groups} channels in a group: only {MOST_CHANNELS} at most")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """The first is the one to take unmeasured."""
    p = problem(spec)
    channels = triton.next_power_of_2(max(p.c, p.k) // p.groups)
    n = max(16, channels)
    # 32 channels are a cache line of bf16; more than 8 groups of 64 pixels, or 4 of 32 pixels and terms, spill.
    few = min(triton.next_power_of_2(p.groups), max(2, min(4 if p.kind == "wgrad" else 8, 32 // channels)))
    many = min(triton.next_power_of_2(p.groups), 2 * few)
    if p.kind == "wgrad":
        tiles = [Config(n, 32, 32, together=few), Config(n, 16, 64, together=few), Config(n, 32, 16, together=many)]
    else:
        tiles = [Config(64, n, 16, together=few), Config(32, n, 32, together=few), Config(32, n, 16, together=many)]
        if not p.channels_last or gemm.slope(spec):  # pixels come one by one, or saved values with them: more registers
            tiles = [replace(tile, num_warps=8) for tile in tiles]
    return gemm.fitted(tiles, spec, p)


def run(config: Config, spec: ConvSpec, *operands: Tensor | None, **options: Any) -> Any:
    """See kernels/conv/native.py: run."""
    return gemm.run(config, spec, problem(spec), *operands, **options)
