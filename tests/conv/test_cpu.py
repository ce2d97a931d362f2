"""The families of the cpu target obey the contract, in every configuration."""

from __future__ import annotations

import pytest

from accelops.kernels.conv import cpu

from .cases import CASES
from .contract import ConvContract, in_every_way


class TestCpu(ConvContract):
    implementation = cpu

    @pytest.mark.parametrize("family", cpu.FAMILIES)
    def test_each_family_serves_some_cases_in_every_direction(self, family: str) -> None:
        served = {
            s.direction for c in CASES if c.batch for s in in_every_way(c) if not cpu.FAMILIES[family].unsupported(s)
        }
        assert served == {"fprop", "dgrad", "wgrad"}
