"""Kernels compiled for C-simulation, once a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache

import pytest

from accelops.targets.fpga import boards
from accelops.targets.fpga.registers import kernels
from accelops.targets.fpga.simulation import Simulated, compile_kernel

Kernels = Callable[[str, str], Simulated]


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """`simulated(kernel, board)`: that kernel, in this process."""

    @cache
    def compiled(kernel: str, board: str) -> Simulated:
        if shutil.which("g++") is None:
            pytest.skip("needs g++")
        folder = tmp_path_factory.mktemp("csim")
        return Simulated(kernels()[kernel], compile_kernel(kernels()[kernel], boards.board(board), folder))

    return compiled
