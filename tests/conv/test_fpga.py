"""The engine of a board obeys the contract, on boards that are emulated in this process."""

from __future__ import annotations

import pytest

from accelops.kernels.conv import fpga

from ..fpga.driven import BOARDS
from .contract import ConvContract


@pytest.mark.parametrize("driven", BOARDS, indirect=True)
@pytest.mark.usefixtures("driven")
class TestFpga(ConvContract):
    implementation = fpga
