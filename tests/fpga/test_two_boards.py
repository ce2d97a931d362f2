"""Two emulated boards in one client: they work at the same time, each with its own clocks, memory and overlays, and
all-reduce a bucket, equal to the bit to what one sum in the order of the ranks gives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack

import numpy as np
import pytest

from accelops.targets.fpga import boards
from accelops.targets.fpga.driver import Driver, Launch
from accelops.targets.fpga.emulator import clocks
from accelops.targets.fpga.emulator.faults import parse
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.errors import BoardHung, BoardLost
from accelops.targets.fpga.pool import Buffer

from .launching import PYNQ, WIRES, Sum, check_sum, driving, random_rows

KINDS = {"pynq-z2 and zcu104": ("pynq-z2", "zcu104"), "two pynq-z2": ("pynq-z2", "pynq-z2")}

# PL clock 0 at half of the board's clock: the block of registers, the offset of its control, and the control's divisors.
SLOW_CLOCKS = {
    "zynq7000": (clocks.SLCR, 0x170, 20 << 8 | 1 << 20),
    "zynquplus": (clocks.CRL_APB, 0xC0, 1 << 24 | 12 << 8 | 1 << 16),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def machines(request: pytest.FixtureRequest) -> list[Machine]:
    return [Machine(boards.board(name)) for name in request.param]


@pytest.fixture(params=WIRES)
def drivers(request: pytest.FixtureRequest, machines: list[Machine]):
    with ExitStack() as stack:
        yield [stack.enter_context(driving(machine, request.param)) for machine in machines]


class Chunk:
    """A part of a bucket on its way: each board in turn adds the ranks that it holds to what the board before it passed on,
    so that the order of the sum is that of the ranks, on however many boards they are."""

    def __init__(self, drivers: Sequence[Driver], rows: Sequence[np.ndarray], scale: float):
        self.sums = []
        for i, (driver, held) in enumerate(zip(drivers, rows, strict=True)):
            passed = [np.zeros((1, held.shape[1]), np.float32)] if i else []
            last = i + 1 == len(drivers)
            self.sums.append(Sum(driver, np.concatenate([*passed, held]), scale if last else 1.0))
        self.inputs = [s.inputs() for s in self.sums]
        self.outputs = [s.output() for s in self.sums]
        self._passed: np.ndarray | None = None

    def submit(self, i: int) -> Future[Launch]:
        flats, descriptors = self.inputs[i]
        if self._passed is not None:
            flats.write(self._passed)
        return self.sums[i].submit(flats, descriptors, self.outputs[i])

    def take(self, i: int) -> None:
        """Waits for board i."""
        self._passed = self.sums[i].result(self.outputs[i])

    def everywhere(self) -> list[Buffer]:
        """The result on every board."""
        for output in self.outputs[:-1]:
            output.write(self._passed)
        return self.outputs


def all_reduce(
    drivers: Sequence[Driver], rows: Sequence[np.ndarray], scale: float, chunks: int = 4
) -> list[list[Buffer]]:
    """rows[i]: (ranks, numel) that board i holds. While one board adds to a chunk, the board before it is at the next."""
    parts = [np.array_split(of_one, chunks, axis=1) for of_one in rows]
    way = [Chunk(drivers, of_chunk, scale) for of_chunk in zip(*parts, strict=True)]
    for step in range(chunks + len(drivers) - 1):
        here = [(i, way[step - i]) for i in range(len(drivers)) if 0 <= step - i < chunks]
        futures = [chunk.submit(i) for i, chunk in here]
        for i, chunk in here:
            chunk.take(i)
        assert all(future.done() for future in futures)
    return [chunk.everywhere() for chunk in way]


@pytest.mark.parametrize("numel", [4, 1003, 5000])
def test_two_boards_all_reduce_a_bucket(drivers: list[Driver], numel: int):
    ranks = [random_rows(seed, 2, numel) for seed in range(2)]
    total = np.zeros(numel, np.float32)
    for row in np.concatenate(ranks):
        total += row
    expected = total * np.float32(0.25)
    reduced = all_reduce(drivers, ranks, scale=0.25)
    sizes = [len(part) for part in np.array_split(expected, len(reduced))]
    for i in range(len(drivers)):
        on_board = [outputs[i].read(np.float32, size) for outputs, size in zip(reduced, sizes, strict=True)]
        assert np.array_equal(np.concatenate(on_board), expected)
    assert [driver.counts.launches for driver in drivers] == [4, 4]


def test_two_boards_compute_at_the_same_time(drivers: list[Driver], machines: list[Machine]):
    prepared = []
    for i, driver in enumerate(drivers):
        check_sum(driver, seed=i)
        s = Sum(driver, random_rows(i, 2, 100))
        prepared.append((s, *s.inputs(), s.output()))
        machines[i].faults.add(parse("slow=0.6"))
    begun = time.monotonic()
    futures = [s.submit(flats, descriptors, out) for s, flats, descriptors, out in prepared]
    launches = [future.result(10) for future in futures]
    assert time.monotonic() - begun < 1.1 < sum(launch.seconds for launch in launches)
    for s, _, _, out in prepared:
        assert np.array_equal(s.result(out), s.expected())


def test_a_board_that_hangs_leaves_the_other_alone(drivers: list[Driver], machines: list[Machine]):
    for driver in drivers:
        check_sum(driver, seed=5)
    machines[0].faults.add(parse("hang"))
    with pytest.raises(BoardHung, match=drivers[0].where):
        check_sum(drivers[0], seed=6)
    check_sum(drivers[1], seed=7)
    check_sum(drivers[0], seed=8)
    assert [driver.counts.reloads for driver in drivers] == [1, 0]


def test_a_board_that_is_lost_leaves_the_other_alone(drivers: list[Driver], machines: list[Machine]):
    machines[0].faults.add(parse("drop"))
    with pytest.raises(BoardLost):
        check_sum(drivers[0], seed=9)
    check_sum(drivers[1], seed=10)


@PYNQ
@pytest.mark.parametrize("names", KINDS.values(), ids=KINDS)
def test_each_boards_clock_is_set_for_its_kernels(names: tuple[str, str]):
    """pynq sets a second board's clock on the first, and none at all on Zynq-7000, unless it is helped."""
    machines = [Machine(boards.board(name)) for name in names]
    with ExitStack() as stack:
        drivers = [stack.enter_context(driving(machine, "pynq")) for machine in machines]
        for machine in machines:
            block, control, wrong = SLOW_CLOCKS[machine.board.family]
            machine.clocks.blocks[block].write(control, wrong)
            assert machine.clocks.pl_mhz < 0.6 * machine.board.clock_mhz
        for driver in drivers:
            check_sum(driver, seed=11)
        for machine in machines:
            assert machine.clocks.pl_mhz == pytest.approx(machine.board.clock_mhz, rel=0.01)
