"""The grouped family: several groups of few channels, each a small matrix product over taps and channels, computed side by
side as a batch, since in channels_last their channels share cache lines and in contiguous they share the pixels' arithmetic.

Bytes and flops: see gemm_flat_kernels.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
from torch import Tensor

from ..spec import ConvSpec
from . import gemm
from .problem import problem

# A group of more channels fills matrix products by itself.
MOST_CHANNELS = 32
# Tiles of more groups than these, whose channels count as 16 at least to the matrix units, spill.
MOST_TOGETHER = {"gather": 8, "scatter": 8, "wgrad": 4}


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
    channels = max(p.c, p.k) // p.groups
    n = max(16, triton.next_power_of_2(channels))
    most = min(MOST_TOGETHER[p.kind], triton.next_power_of_2(p.groups))
    together = [max(2, min(most, size // triton.next_power_of_2(channels))) for size in (32, 64)]
    if p.kind == "wgrad":
        tiles = [Config(n, 32, 32, together=g) for g in together] + [Config(n, 16, 64, together=together[0])]
    else:
        tiles = [Config(64, n, 16, together=g) for g in together] + [Config(32, n, 32, together=together[0])]
    return gemm.fitted(tiles, spec, p)


def run(config: Config, spec: ConvSpec, *operands: Tensor | None, **options: Any) -> Any:
    """See kernels/conv/native.py: run."""
    return gemm.run(config, spec, problem(spec), *operands, **options)
