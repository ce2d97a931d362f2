"""Emulated boards for tests of what is written against the driver: in this process, and, where pynq is installed, behind its
real client."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest

from accelops.targets import fpga
from accelops.targets.fpga import boards
from accelops.targets.fpga.driver import Driver, Launch
from accelops.targets.fpga.emulator.machine import Machine

from .in_process import InProcess

BOARDS = ("pynq-z2", "zcu104")


@contextmanager
def driving(board: str) -> Iterator[Driver]:
    """That board, in use; one for all tests of a session, as its kernels are compiled once."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    with fpga.on(_driver(board)) as driver:
        yield driver


@contextmanager
def recorded(driver: Driver) -> Iterator[list[Launch]]:
    """Collects the launches that are made meanwhile."""
    made: list[Launch] = []
    run = driver.run

    def noted(*args: Any, **more: Any) -> Launch:
        made.append(run(*args, **more))
        return made[-1]

    with patch.object(driver, "run", noted):
        yield made


@cache
def _driver(board: str) -> Driver:
    return Driver(InProcess(Machine(boards.board(board))))
