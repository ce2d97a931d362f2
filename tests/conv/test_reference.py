"""The ground truth obeys the contract, and agrees with a definition that shares nothing with it."""

from __future__ import annotations

import numpy as np
import pytest

from accelops.kernels.conv import reference
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import DIRECTIONS

from .contract import BY_NAME, NAMES, ConvContract, by_definition, results


class TestReference(ConvContract):
    implementation = reference

    @pytest.mark.parametrize("name", NAMES)
    def test_every_direction_agrees_with_the_definition(self, name: str) -> None:
        for direction in DIRECTIONS:
            spec = BY_NAME[name].spec(direction, "float64", bias=direction != "dgrad")
            given = operands(spec, self.current_seed)
            expected = by_definition(spec, *(None if t is None else t.numpy() for t in given))
            for got, exact in zip(results(reference, reference.Config(), spec, given), expected, strict=True):
                np.testing.assert_allclose(got.numpy(), exact.astype(float), 1e-12, 1e-12)

    def test_it_serves_every_case(self) -> None:
        assert all(not reference.unsupported(case.spec()) for case in BY_NAME.values())
