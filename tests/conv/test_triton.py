"""The Triton kernels obey the contract. Where there is no GPU, Triton's interpreter runs them, a thousand times slower: each
test then takes one of its Specs, another one every time, with the Config that makes the fewest programs of it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from math import prod
from typing import Any

import pytest
import torch

from accelops.kernels.conv import triton
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.targets.triton import architecture, emulated, launching

from .cases import CASES
from .contract import ConvContract, Operands, results

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, at the interpreter's infinities


class TestTriton(ConvContract):
    implementation = triton
    every_config = not emulated()

    def supported(self, specs: Iterator[ConvSpec]) -> list[ConvSpec]:
        served = super().supported(specs)
        return random.sample(served, min(1, len(served))) if emulated() else served

    def configs(self, spec: ConvSpec) -> list[Any]:
        configs = super().configs(spec)
        return configs if self.every_config else [min(configs, key=lambda config: programs(config, spec))]

    def assert_same_on_every_thread_count(self, config: Any, spec: ConvSpec, given: Operands) -> None:
        """No threads of the CPU take part; two runs agree to the last bit."""
        one, two = (results(triton, config, spec, given) for _ in range(2))
        assert all(map(torch.equal, one, two)), (config, spec)

    @pytest.mark.parametrize("form", ["contiguous", "channels_last"])
    @pytest.mark.parametrize("direction", DIRECTIONS)
    @pytest.mark.parametrize("family", triton.FAMILIES)
    def test_every_config_of_a_family_on_a_small_case(self, family: str, direction: str, form: str) -> None:
        served = [case.spec(direction, "float32", form) for case in CASES if case.batch and len(case.size) > 1]
        served = [spec for spec in served if not triton.FAMILIES[family].unsupported(spec)]
        self.every_config = True
        self.check(min(served, key=lambda spec: spec.flops))


def programs(config: Any, spec: ConvSpec) -> int:
    """How many programs `config` makes of `spec`."""
    grids: list[tuple[int, ...]] = []
    spec = dataclasses.replace(spec, device="meta")
    with launching(lambda kernel, grid, *arguments, **constants: grids.append(grid), architecture()):
        triton.run(config, spec, *operands(spec))
    return sum(map(prod, grids))
