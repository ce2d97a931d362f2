"""Emulated boards for tests of what is written against the driver: in this process, and, where pynq is installed, behind its
real client."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from accelops.targets import fpga
from accelops.targets.fpga import boards
from accelops.targets.fpga.driver import Driver
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


@cache
def _driver(board: str) -> Driver:
    return Driver(InProcess(Machine(boards.board(board))))
