"""Is a convolution right? The error against fp64, and how much of it torch's own kernel of the same dtype would be allowed.

Allowed is twice torch's error; or, where torch happens to be closer than it can promise, four units in the last place of the
result's scale, or what rounding makes of a sum of so many terms. It needs torch alone, so that a bare GPU machine can judge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import inf, prod, sqrt
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from accelops.kernels.conv import aten
from accelops.kernels.conv.spec import ConvSpec

FACTOR = 2
ULPS = 4

Operands = tuple[Tensor | None, ...]


def results(
    implementation: ModuleType, config: Any, spec: ConvSpec, given: Operands, save: bool = False
) -> list[Tensor]:
    """What a run gives, without what it leaves out."""
    got = implementation.run(config, spec, *given, **({"save": True} if save else {}))
    return [r for r in (got if isinstance(got, tuple) else (got,)) if r is not None]


def by_torch(spec: ConvSpec, given: Operands, save: bool = False) -> list[Tensor]:
    """torch's own kernel in the spec's dtype."""
    return results(aten, aten.Config(), spec, tuple(None if t is None else t.clone() for t in given), save)


def in_double(spec: ConvSpec, given: Operands, save: bool = False) -> list[Tensor]:
    """torch's own kernel in fp64."""
    doubles = tuple(None if t is None else t.double() for t in given)
    return by_torch(dataclasses.replace(spec, dtype="float64"), doubles, save)


def rounding_of_terms(spec: ConvSpec, given: Operands) -> float:
    """What n roundings (in the precision of the sums) of independent sign make of n terms: sqrt(n) u times the greatest sum of
    the terms' absolute values (Higham & Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 2.4
    with lambda = 1). torch's own sums are in blocks, and by chance several times better where results are few."""
    absolute = [None if t is None else t.abs() for t in given]
    if spec.direction != "fprop":
        absolute[2] = None
    sums = in_double(dataclasses.replace(spec, activation="none"), tuple(absolute))
    precision = torch.float64 if spec.dtype == "float64" else torch.float32
    greatest = max((r.max().item() for r in sums if r.numel()), default=0)
    return torch.finfo(precision).eps / 2 * sqrt(_terms(spec)) * greatest


def _terms(spec: ConvSpec) -> int:
    """How many products a result is the sum of, at most."""
    if spec.direction == "wgrad":
        return spec.input[0] * prod(spec.input[2:] if spec.transposed else spec.output[2:])
    channels = spec.input[1] if spec.direction == "fprop" else spec.out_channels
    return channels // spec.groups * prod(spec.kernel)


def share_of_allowed(
    actual: Sequence[Tensor], of_torch: Sequence[Tensor], exact: Sequence[Tensor], rounding: float
) -> float:
    """The largest error of `actual` over the allowed one; above 1, or infinite where a value is not finite, it is wrong."""
    return max((_share(*each, rounding) for each in zip(actual, of_torch, exact, strict=True)), default=0.0)


def _share(actual: Tensor, of_torch: Tensor, exact: Tensor, rounding: float) -> float:
    if not exact.numel():
        return 0.0
    error, torchs = ((t.double() - exact).abs().max().item() for t in (actual, of_torch))
    allowed = max(FACTOR * torchs, ULPS * torch.finfo(actual.dtype).eps * exact.abs().max().item(), rounding)
    if error <= allowed:
        return error / allowed if allowed else 0.0
    return error / allowed if allowed and error == error else inf
