"""Emulated boards for tests of what is written against the driver: in this process and, where pynq is installed, behind its
real client."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import pytest

from accelops.targets.fpga import boards
from accelops.targets.fpga.driver import Driver, Launch
from accelops.targets.fpga.emulator.machine import Machine

from . import launching

OVER_PYNQ = " over pynq"
BOARDS = ("pynq-z2", "zcu104", *(["pynq-z2" + OVER_PYNQ] if find_spec("pynq") else []))


@contextmanager
def emulated(name: str) -> Iterator[Driver]:
    """The board `name` of BOARDS."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    machine = Machine(boards.board(name.removesuffix(OVER_PYNQ)))
    with launching.driving(machine, "pynq" if name.endswith(OVER_PYNQ) else "in process") as driver:
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
