"""Compares one family of the cpu target with the reference in fp64, and with the error that torch's kernel makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import product
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from accelops import judge
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
    save = spec.direction == "fprop" and spec.activation in ("silu", "gelu")
    return judge.results(implementation, config, spec, given, save)


def check(family: ModuleType, spec: ConvSpec, seed: int) -> None:
    """Every Config of `family` is as close to fp64 as accelops.judge asks."""
    assert family.unsupported(spec) == []
    given = operands(spec, seed)
    exact_spec = dataclasses.replace(spec, dtype="float64")
    exact_given = tuple(None if t is None else t.double() for t in given)
    exact = results(reference, reference.Config(), exact_spec, exact_given)
    torchs = results(aten, aten.Config(), spec, given)
    rounding = judge.rounding_of_terms(spec, given)
    for config in family.configs(spec):
        got = results(cpu, config, spec, given)
        assert [(r.shape, r.dtype) for r in got] == [(r.shape, r.dtype) for r in torchs]
        share = judge.share_of_allowed(got, torchs, exact, rounding)
        assert share <= 1, f"{share:.3g} times the error allowed: {config}, {spec}, seed {seed}"


def poison_the_heap() -> None:
    """Fill freed memory with NaN, so that a result that is not written, or scratch that is read unwritten, shows."""
    blocks = [torch.full((1 << n,), float("nan")) for n in range(4, 22) for _ in range(4)]
    del blocks
