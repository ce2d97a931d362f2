"""Compares one family of the cpu target with the reference in fp64, and with the error that torch's kernel makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import product
from math import prod, sqrt
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from accelops.kernels.conv import aten, cpu, reference
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec


def in_every_direction(spec: ConvSpec) -> Iterator[ConvSpec]:
    """The three directions of a forward problem, in both memory formats where there are two."""
    for direction, form in product(DIRECTIONS, ("contiguous", "channels_last") if spec.ndim > 1 else ("contiguous",)):
        yield dataclasses.replace(
            spec, direction=direction, memory_format=form, bias=spec.bias and direction != "dgrad"
        )


def results(implementation: ModuleType, config: Any, spec: ConvSpec, given: tuple[Tensor | None, ...]) -> list[Tensor]:
    """What a run gives, without what it leaves out; `saved` too where the activation needs it."""
    save = {"save": True} if spec.direction == "fprop" and spec.activation in ("silu", "gelu") else {}
    got = implementation.run(config, spec, *given, **save)
    return [r for r in (got if isinstance(got, tuple) else (got,)) if r is not None]


def rounding_of_terms(spec: ConvSpec, given: tuple[Tensor | None, ...]) -> float:
    """What n roundings (in the precision of the sums) of independent sign make of n terms: sqrt(n) u times the greatest sum of
    the terms' absolute values (Higham & Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 2.4
    with lambda = 1). torch's own sums are in blocks, and by chance several times better where results are few."""
    plain = dataclasses.replace(spec, dtype="float64", activation="none")
    absolute = [None if t is None else t.double().abs() for t in given]
    if spec.direction != "fprop":
        absolute[2] = None
    sums = results(reference, reference.Config(), plain, tuple(absolute))
    precision = torch.float64 if spec.dtype == "float64" else torch.float32
    greatest = max((r.max().item() for r in sums if r.numel()), default=0)
    return torch.finfo(precision).eps / 2 * sqrt(_terms(spec)) * greatest


def _terms(spec: ConvSpec) -> int:
    """How many products a result is the sum of, at most."""
    if spec.direction == "wgrad":
        return spec.input[0] * prod(spec.input[2:] if spec.transposed else spec.output[2:])
    channels = spec.input[1] if spec.direction == "fprop" else spec.out_channels
    return channels // spec.groups * prod(spec.kernel)


def check(family: ModuleType, spec: ConvSpec, seed: int) -> None:
    """Every Config of `family` is as close to fp64 as twice torch's own error, or, where torch happens to be exact, as four
    units in the last place of the result's scale or what rounding makes of a sum of so many terms."""
    assert family.unsupported(spec) == []
    given = operands(spec, seed)
    exact_spec = dataclasses.replace(spec, dtype="float64")
    exact_given = tuple(None if t is None else t.double() for t in given)
    exact = results(reference, reference.Config(), exact_spec, exact_given)
    torchs = results(aten, aten.Config(), spec, given)
    rounding = rounding_of_terms(spec, given)
    for config in family.configs(spec):
        got = results(cpu, config, spec, given)
        assert len(got) == len(exact) == len(torchs)
        for ours, want, other in zip(got, exact, torchs, strict=True):
            assert ours.shape == want.shape
            assert ours.dtype == getattr(torch, spec.dtype)
            if want.numel() == 0:
                continue
            scale = want.abs().max().item()
            allowed = max(
                2 * (other.double() - want).abs().max().item(), 4 * torch.finfo(ours.dtype).eps * scale, rounding
            )
            error = (ours.double() - want).abs().max().item()
            assert error <= allowed, f"error {error:.3g}, allowed {allowed:.3g}: {config}, {spec}, seed {seed}"


def poison_the_heap() -> None:
    """Fill freed memory with NaN, so that a result that is not written, or scratch that is read unwritten, shows."""
    blocks = [torch.full((1 << n,), float("nan")) for n in range(4, 22) for _ in range(4)]
    del blocks
