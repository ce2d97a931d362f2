"""What goes wrong with a board, on both wires: each fault is told with its figures, no partial result is ever read, and the
board is of use again afterwards where it can be."""

from __future__ import annotations

import time

import numpy as np
import pytest

from accelops.targets.fpga import boards, model
from accelops.targets.fpga.driver import Driver
from accelops.targets.fpga.emulator.faults import parse
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.errors import (
    BoardFault,
    BoardHung,
    BoardLost,
    BoardMemoryExhausted,
    OverlayMismatch,
)
from accelops.targets.fpga.pool import SMALLEST

from .launching import WIRES, Sum, check_sum, driving, nothing, prepared, random_rows

PYNQ_Z2 = boards.board("pynq-z2")


@pytest.fixture
def warnings() -> list[str]:
    """Of the emulated board: what a real one would not tell."""
    return []


@pytest.fixture
def machine(warnings: list[str]) -> Machine:
    return Machine(PYNQ_Z2, warned=warnings.append)


@pytest.fixture(params=WIRES)
def driver(request: pytest.FixtureRequest, machine: Machine):
    with driving(machine, request.param) as made:
        check_sum(made, seed=0)  # the overlay is loaded
        yield made


def fault(machine: Machine, text: str) -> None:
    machine.faults.add(parse(text))


def test_a_hang_is_told_with_registers_and_arguments_and_the_next_use_reloads(driver: Driver, machine: Machine):
    s, flats, descriptors, out = prepared(driver)
    fault(machine, "hang")
    begun = time.monotonic()
    with pytest.raises(BoardHung) as hung:
        s.run(flats, descriptors, out)
    assert 1 <= time.monotonic() - begun < 5
    said = str(hung.value)
    assert driver.where in said and "reduce did not finish in 1." in said and "loads the overlay again" in said
    assert "CTRL=0x1" in said and "AP_START" in said and "VERSION=0x1" in said
    assert f"flats0={flats.address:#x}" in said and f"out3={out.address:#x}" in said
    assert "buckets=0x1" in said and "scale=1" in said
    s.run(flats, descriptors, out)  # inputs are still there
    assert np.array_equal(s.result(out), s.expected())
    assert (driver.counts.reloads, driver.counts.loads) == (1, 2)


def test_what_a_failed_launch_was_to_write_cannot_be_read(driver: Driver, machine: Machine):
    s, flats, descriptors, out = prepared(driver)
    fault(machine, "hang")
    with pytest.raises(BoardHung):
        s.run(flats, descriptors, out)
    with pytest.raises(BoardHung, match=r"holds no result, write it anew: .*did not finish"):
        s.result(out)
    with pytest.raises(BoardHung, match="holds no result"):
        out.write(np.zeros(1, np.float32))  # a part of it
    again = Sum(driver, random_rows(2, 1, 8))
    with pytest.raises(BoardHung, match="holds no result"):
        again.run(out, again.inputs()[1], again.output())  # as an input
    out.write(np.ones(s.nbytes // 4, np.float32))
    assert s.result(out).tolist() == [1] * 37


def test_memory_goes_back_to_the_board_only_when_a_hung_kernel_is_gone(
    driver: Driver, machine: Machine, warnings: list[str]
):
    """It may still write, to memory that is someone else's by then."""
    for use_next in (lambda: driver.allocate(50 * SMALLEST).free(), driver.close):
        s, flats, descriptors, out = prepared(driver)
        fault(machine, "slow=2")
        with pytest.raises(BoardHung):
            s.run(flats, descriptors, out)
        for buffer in (flats, descriptors, out):
            buffer.free()
        fault(machine, "out-of-memory")  # so that allocating gives idle memory back first
        use_next()
    assert driver.counts.reloads == 2
    assert machine.ddr.held == 0
    assert not [warning for warning in warnings if "is freed" in warning]


def test_an_interrupted_wait_leaves_nothing_to_be_read_and_the_board_dead(
    driver: Driver, machine: Machine, monkeypatch
):
    s, flats, descriptors, out = prepared(driver)
    fault(machine, "slow=0.5")

    def interrupt(address: int) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(driver.link, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            s.run(flats, descriptors, out)
    with pytest.raises(BoardHung, match="interrupted"):
        s.result(out)
    time.sleep(0.6)
    check_sum(driver, seed=3)
    assert driver.counts.reloads == 1


def test_a_slow_launch_is_waited_for(driver: Driver, machine: Machine):
    fault(machine, "slow=0.4")
    assert check_sum(driver, seed=4).seconds >= 0.4
    assert driver.counts.reloads == 0


def test_a_launch_modelled_to_be_long_gets_ten_times_as_long(driver: Driver, machine: Machine):
    fault(machine, "slow=1.5")
    s, flats, descriptors, out = prepared(driver)
    slow = model.Estimate(PYNQ_Z2, {}, cycles=20_000_000, bytes=0)  # 0.2 s
    assert slow.seconds == 0.2
    arguments = s._arguments(flats, descriptors, out)
    driver.emulation = None  # as a real board, which gets no time to simulate
    driver.run("reduce", slow, **arguments)
    fault(machine, "slow=1.5")
    with pytest.raises(BoardHung):
        driver.run("reduce", s._launch()[1], **arguments)


def test_a_hang_of_a_submitted_launch_arrives_in_its_future_and_in_what_reads_its_result(
    driver: Driver, machine: Machine
):
    s, flats, descriptors, out = prepared(driver)
    fault(machine, "hang")
    future = s.submit(flats, descriptors, out)
    with pytest.raises(BoardHung):
        s.result(out)
    assert isinstance(future.exception(), BoardHung)
    check_sum(driver, seed=5)


def test_a_connection_lost_while_inputs_are_sent(driver: Driver, machine: Machine):
    s, flats, descriptors, out = prepared(driver)
    fault(machine, "drop")
    with pytest.raises(BoardLost, match=driver.where):
        s.run(flats, descriptors, out)
    for use in (lambda: s.run(flats, descriptors, out), lambda: driver.allocate(1)):
        with pytest.raises(BoardLost, match="connect anew"):
            use()


def test_a_connection_lost_while_a_result_is_fetched_gives_nothing(driver: Driver, machine: Machine):
    s, flats, descriptors, out = prepared(driver)
    s.run(flats, descriptors, out)
    before = out._memory.array.copy()
    fault(machine, "drop")
    with pytest.raises(BoardLost):
        s.result(out)
    assert np.array_equal(out._memory.array, before)
    with pytest.raises(BoardLost):
        s.result(out)


@pytest.mark.parametrize("wire", WIRES)
def test_exhausted_memory_is_told_with_what_is_asked_held_and_free(wire: str):
    with driving(Machine(PYNQ_Z2, cma_bytes=64 * 1024), wire) as driver:
        held = [driver.allocate(SMALLEST) for _ in range(4)]
        with pytest.raises(BoardMemoryExhausted) as exhausted:
            driver.allocate(60_000)
        assert exhausted.value.asked == 65536 and exhausted.value.held == len(held) * SMALLEST
        assert exhausted.value.free is not None and 0 < exhausted.value.free < 65536 - 4 * SMALLEST
        for figure in ("65536", str(4 * SMALLEST), str(exhausted.value.free)):
            assert figure in str(exhausted.value)


def test_memory_that_no_buffer_uses_is_given_back_before_it_is_said_to_be_exhausted(driver: Driver, machine: Machine):
    small = [driver.allocate(SMALLEST) for _ in range(3)]
    before = machine.ddr.held
    for buffer in small:
        buffer.free()
    fault(machine, "out-of-memory")
    with driver.allocate(3 * SMALLEST):
        assert machine.ddr.held < before + 3 * SMALLEST, "the three went back to the board"
    fault(machine, "out-of-memory*2")
    with pytest.raises(BoardMemoryExhausted):
        driver.allocate(100 * SMALLEST)
    check_sum(driver, seed=6)


def test_an_overlay_of_another_configuration_is_refused(driver: Driver, machine: Machine):
    fault(machine, "wrong-overlay")
    with pytest.raises(
        OverlayMismatch, match=r"adam of .* says VERSION=0x1, CONFIG_HASH=0x.*drives VERSION=0x1, CONFIG_HASH"
    ):
        driver.run("adam", model.adam(PYNQ_Z2, 0), **nothing(PYNQ_Z2))
    driver.run("adam", model.adam(PYNQ_Z2, 0), **nothing(PYNQ_Z2))  # loaded again


def test_a_bitstream_damaged_on_its_way_is_refused_and_sent_again(driver: Driver, machine: Machine):
    fault(machine, "bad-crc")
    with pytest.raises(BoardFault, match="CRC error"):
        driver.run("adam", model.adam(PYNQ_Z2, 0), **nothing(PYNQ_Z2))
    driver.run("adam", model.adam(PYNQ_Z2, 0), **nothing(PYNQ_Z2))


def test_what_an_emulated_board_sees_is_told(driver: Driver):
    s, flats, descriptors, out = prepared(driver)
    descriptors.write(np.array([0, s.stride, 0, 10_000], np.uint32))  # far behind the buffers' ends
    with pytest.raises(BoardFault, match="reduce"):
        s.run(flats, descriptors, out)
    with pytest.raises(BoardFault, match="holds no result"):
        s.result(out)
