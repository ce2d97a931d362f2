"""The stem family: so few channels are summed over that those of one tap do not fill a matrix product, as in the first layer
of a network, which sees an image's 3 colours; taps and channels are then one dimension, of 7 x 7 x 3 terms in a ResNet's.

Bytes and flops: see gemm_flat_kernels.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..problem import problem
from ..spec import ConvSpec
from . import gemm

# A product sums at least 16 terms at once; with more channels than this a tap of its own fills most of them.
MOST_CHANNELS = 8


@dataclass(frozen=True)
class Config(gemm.Flat):
    """See gemm.Flat."""


def unsupported(spec: ConvSpec) -> list[str]:
    p = problem(spec)
    reasons = gemm.unsupported(spec, p)
    channels = (p.k if p.kind == "scatter" else p.c) // p.groups
    if channels > MOST_CHANNELS:
        reasons.append(f"{channels} channels of a group meet each tap: only {MOST_CHANNELS} at most")
    if set(p.taps) == {1}:
        reasons.append(f"kernel={spec.kernel}: a single tap has nothing to add to its channels")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """The first is the one to take unmeasured."""
    p = problem(spec)
    if p.kind == "wgrad":
        tiles = [Config(64, 64, 32), Config(64, 32, 32), Config(32, 64, 32), Config(64, 128, 32, num_warps=8)]
    else:
        tiles = [Config(64, 64, 32), Config(128, 64, 32, num_warps=8), Config(64, 32, 32), Config(64, 32, 64)]
    return gemm.fitted(tiles, spec, p)


def run(config: Config, spec: ConvSpec, *operands: Tensor | None, **options: Any) -> Any:
    """See kernels/conv/native.py: run."""
    return gemm.run(config, spec, problem(spec), *operands, **options)
