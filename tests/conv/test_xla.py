"""The lowerings for TPUs obey the contract in every Config, run by jax on the CPU; Pallas kernels are interpreted. To compile
takes the most time, so each test takes one of its Specs, others every time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("jax")

from accelops.kernels.conv import xla
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.kernels.conv.xla import table
from accelops.kernels.conv.xla.lowering import FAMILIES, in_memory
from accelops.kernels.conv.xla.lowering import operands as arrays

from .cases import CASES
from .contract import BY_NAME, ConvContract, Operands, in_every_way, results


class TestXla(ConvContract):
    implementation = xla

    def supported(self, specs: Iterator[ConvSpec]) -> list[ConvSpec]:
        served = super().supported(specs)
        return random.sample(served, min(1, len(served)))

    def assert_same_on_every_thread_count(self, config: Any, spec: ConvSpec, given: Operands) -> None:
        """torch's threads take no part; two runs agree to the last bit."""
        one, two = (results(xla, config, spec, given) for _ in range(2))
        for before, after in zip(one, two, strict=True):
            assert before.equal(after), (config, spec)

    @pytest.mark.parametrize("form", ["contiguous", "channels_last"])
    @pytest.mark.parametrize("direction", DIRECTIONS)
    @pytest.mark.parametrize("name", [c.name for c in CASES if c.batch and "depthwise" in c.name and len(c.size) < 3])
    def test_the_depthwise_family_in_every_direction(self, name: str, direction: str, form: str) -> None:
        spec = BY_NAME[name].spec(direction, memory_format=form)
        if spec.ndim == 1 and form == "channels_last":
            pytest.skip("1D has one format")
        assert [c for c in self.configs(spec) if isinstance(c, FAMILIES["depthwise"].Config)]
        self.check(spec)

    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_groups_are_merged_in_every_way_that_fills_the_lanes(self, direction: str) -> None:
        spec = BY_NAME["2d grouped"].spec(direction)
        assert [config.merge for config in xla.configs(spec)] == [1, 3]
        wide = ConvSpec(direction, (1, 256, 3, 3), (256, 4, 1, 1), (1, 1), (0, 0), (1, 1), groups=64)
        assert [config.merge for config in xla.configs(wide)] == [1, 32, 64]
        self.check(wide)

    @pytest.mark.parametrize("name", ["2d grouped", "2d channel multiplier", "2d transposed grouped dilated"])
    def test_the_filters_of_other_groups_are_right_where_one_has_met_a_nan(self, name: str) -> None:
        spec = BY_NAME[name].spec("wgrad")
        grad_output, input, _ = operands(spec, self.current_seed)
        assert grad_output is not None and input is not None
        for config in xla.configs(spec):
            (expected,) = results(xla, config, spec, (grad_output, input, None))
            hurt = grad_output.clone()
            hurt[:, 0] = float("nan")
            (got,) = results(xla, config, spec, (hurt, input, None))
            each = spec.weight[0] // spec.groups
            assert got[:each].isnan().any() and not got[each:].isnan().any(), config
            torch.testing.assert_close(got[each:], expected[each:], rtol=1e-5, atol=1e-5)

    def test_the_table_of_a_chip_says_what_is_taken_unmeasured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = BY_NAME["2d grouped"].spec()
        entries = {"v5e": table.Entry({"type": "dense.Config", "merge": 3}, 2.0)}
        monkeypatch.setattr(table, "lookup", lambda spec, chip: entries.get(chip))
        for chip, merges in (("v5e", [3, 1]), ("v4", [1, 3]), (None, [1, 3])):
            monkeypatch.setattr(xla.xla, "chip", lambda device, chip=chip: chip)
            assert [config.merge for config in xla.configs(spec)] == merges

    def test_every_spec_is_served_but_for_its_dtype(self) -> None:
        for case in CASES:
            for spec in in_every_way(case):
                assert xla.unsupported(spec) == [] and xla.configs(spec)
        assert "float64" in xla.unsupported(BY_NAME["2d"].spec(dtype="float64"))[0]

    def test_arrays_lie_as_tensors_do(self) -> None:
        for case in CASES:
            for spec in in_every_way(case, bias=True, activation="silu"):
                for tensor, array in zip(operands(spec), arrays(spec), strict=True):
                    if tensor is not None and array is not None:
                        assert array.shape == in_memory(spec, tuple(tensor.shape))
                        assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
