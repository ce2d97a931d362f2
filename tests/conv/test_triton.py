"""The Triton kernels obey the contract. Where there is no GPU, Triton's interpreter runs them, a thousand times slower: each
test then takes one of its Specs and one of the families that serve it, others every time, with the Config that makes the
fewest programs of it, if they are bearably few."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from math import prod
from types import ModuleType
from typing import Any

import pytest
import torch

from accelops.kernels.conv import triton
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.problem import Problem
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.targets.triton import architecture, emulated, launching

from .cases import CASES
from .contract import BY_NAME, ConvContract, Operands, results

pytestmark = [
    pytest.mark.usefixtures("interpreter_rounds_to_bf16"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, at the interpreter's infinities
]


class TestTriton(ConvContract):
    implementation = triton
    only: ModuleType | None = None  # the family whose Configs are judged, all of them

    def supported(self, specs: Iterator[ConvSpec]) -> list[ConvSpec]:
        served = super().supported(specs)
        return random.sample(served, min(1, len(served))) if emulated() else served

    def configs(self, spec: ConvSpec) -> list[Any]:
        if self.only or not emulated():
            return self.only.configs(spec) if self.only else super().configs(spec)
        families = [module for module in triton.FAMILIES.values() if not module.unsupported(spec)]
        smallest = [min(m.configs(spec), key=lambda config: programs(config, spec)) for m in families]
        bearable = 2 * min(programs(config, spec) for config in smallest) + 8
        return [random.choice([config for config in smallest if programs(config, spec) <= bearable])]

    def smallest(self, specs: list[ConvSpec]) -> ConvSpec:
        """That of the fewest programs."""
        return min(specs, key=lambda spec: sum(programs(config, spec) for config in self.configs(spec)))

    def assert_same_on_every_thread_count(self, config: Any, spec: ConvSpec, given: Operands) -> None:
        """No threads of the CPU take part; two runs agree to the last bit."""
        one, two = (results(triton, config, spec, given) for _ in range(2))
        assert all(map(torch.equal, one, two)), (config, spec)

    @pytest.mark.parametrize("form", ["contiguous", "channels_last"])
    @pytest.mark.parametrize("direction", DIRECTIONS)
    @pytest.mark.parametrize("family", triton.FAMILIES)
    def test_every_config_of_a_family_on_a_small_case(self, family: str, direction: str, form: str) -> None:
        self.only = triton.FAMILIES[family]
        served = [case.spec(direction, "float32", form) for case in CASES if case.batch and len(case.size) > 1]
        served = [spec for spec in served if not self.only.unsupported(spec)]
        if not served:
            pytest.skip(f"{family} serves no {direction} in {form}")
        self.check(self.smallest(served))

    @pytest.mark.parametrize("direction", DIRECTIONS)
    @pytest.mark.parametrize("family", triton.FAMILIES)
    def test_offsets_of_64_bits(self, family: str, direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """As tensors of 2^31 elements have, here where fewer would do."""
        monkeypatch.setattr(Problem, "wide", True)
        self.only = triton.FAMILIES[family]
        forms = ("contiguous", "channels_last")
        served = [case.spec(direction, "float32", form) for case in CASES if case.batch for form in forms]
        served = [spec for spec in served if spec.ndim > 1 and not self.only.unsupported(spec)]
        for form in {spec.memory_format for spec in served}:
            self.check(self.smallest([spec for spec in served if spec.memory_format == form]))

    def test_zeros_past_the_result_meet_no_infinities_of_the_input_in_the_weight_gradient_of_boxes(self) -> None:
        spec = BY_NAME["2d channels of whole 16 bytes"].spec("wgrad", memory_format="channels_last")
        gradient, input, _ = operands(spec, self.current_seed)
        assert gradient is not None and input is not None
        input[..., -1] = float("inf")  # the last column, which the first of three taps does not reach
        for config in triton.FAMILIES["boxes"].configs(spec):
            (got,) = results(triton, config, spec, (gradient, input, None))
            assert got[..., 0].isfinite().all() and not got[..., 1:].isfinite().any()


def programs(config: Any, spec: ConvSpec) -> int:
    """How many programs `config` makes of `spec`."""
    grids: list[tuple[int, ...]] = []
    spec = dataclasses.replace(spec, device="meta")
    with launching(lambda kernel, grid, *arguments, **constants: grids.append(grid), architecture()):
        triton.run(config, spec, *operands(spec))
    return sum(map(prod, grids))
