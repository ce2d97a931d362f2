"""For the whole suite: Triton's interpreter where there is no GPU, and memory for tests of tensors with more than 2^31
elements or bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import torch
from filelock import FileLock

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton

LOCK = Path(gettempdir()) / f"accelops-tests-{os.getuid()}-memory.lock"


@pytest.fixture
def gigabytes() -> Iterator[Callable[[float], None]]:
    """`gigabytes(n)` waits until no other process of the suite holds much memory, and skips the test where n are not free.
    The page cache counts as free."""
    with ExitStack() as held:

        def ask(needed: float) -> None:
            held.enter_context(FileLock(LOCK))
            lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
            free = next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable")), 0.0)
            if free < 1.25 * needed:
                pytest.skip(f"needs {needed:.0f} GiB of free memory and a quarter more; {free:.0f} are free")

        yield ask


@pytest.fixture
def interpreter_rounds_to_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every GPU does, where Triton's interpreter runs."""
    from accelops.targets.triton import emulated, unavailable

    if unavailable() is None and emulated():
        from .interpreter import round_to_bf16

        round_to_bf16(monkeypatch)


@pytest.fixture(scope="session")
def emulated_board() -> Iterator[Callable[[str], Any]]:
    """`emulated_board(name)`: the driver of one of tests.fpga.driven.BOARDS, the same for all tests."""
    from .fpga.driven import emulated

    with ExitStack() as running:
        yield cache(lambda name: running.enter_context(emulated(name)))


@pytest.fixture
def driven(request: pytest.FixtureRequest, emulated_board: Callable[[str], Any]) -> Iterator[Any]:
    """The driver of the board that the fixture's parameter names, in use."""
    from accelops.targets import fpga

    with fpga.on(emulated_board(request.param)) as driver:
        yield driver


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many combinations of kernel, Config and architecture the tests have compiled: each of them records "compiled"."""
    reports = terminalreporter.stats.get("passed", [])
    compiled = sum(value for report in reports for name, value in report.user_properties if name == "compiled")
    if compiled:
        terminalreporter.write_line(f"compiled {compiled} combinations of Triton kernel, Config and architecture")
