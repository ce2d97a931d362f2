"""The emulated board's memory: two copies of every buffer that only a flush or an invalidate makes agree, and its limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accelops.targets.fpga import boards
from accelops.targets.fpga.emulator.ddr import CMA_BYTES, PAGE, Ddr
from accelops.targets.fpga.emulator.faults import OutOfMemory, Refused
from accelops.targets.fpga.emulator.machine import Machine

from .host import Host

PYNQ_Z2 = boards.board("pynq-z2")


@pytest.fixture
def ddr() -> Ddr:
    return Ddr(PYNQ_Z2)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(Machine(PYNQ_Z2), tmp_path)


def seen(ddr: Ddr, address: int, words: int = 2) -> list[int]:
    return ddr.words(address, words).tolist()


def test_what_the_processor_writes_reaches_memory_by_a_flush_alone(ddr: Ddr):
    at = ddr.allocate(8)
    ddr.write(at, b"\1\0\0\0\2\0\0\0")
    assert seen(ddr, at) == [0xFFFFFFFF] * 2
    ddr.flush(at)
    assert seen(ddr, at) == [1, 2]


def test_what_a_kernel_writes_reaches_the_processor_by_an_invalidate_alone(ddr: Ddr):
    at = ddr.allocate(8)
    ddr.write(at, bytes(8))
    ddr.flush(at)
    ddr.words(at, 2)[:] = 7, 8
    assert ddr.read(at) == bytes(8)
    ddr.invalidate(at)
    assert ddr.read(at) == b"\7\0\0\0\10\0\0\0"


def test_an_invalidate_drops_what_was_not_flushed(ddr: Ddr):
    at = ddr.allocate(4)
    ddr.write(at, b"\1\0\0\0")
    ddr.invalidate(at)
    assert ddr.buffer(at).dirty is None
    ddr.flush(at)
    assert seen(ddr, at, 1) == [0xFFFFFFFF]


def test_a_flush_writes_back_only_what_was_written(ddr: Ddr):
    at = ddr.allocate(12)
    ddr.write(at, bytes(12))
    ddr.flush(at)
    ddr.words(at, 3)[:] = 5
    ddr.write(at, b"\1\0\0\0", 4)
    ddr.flush(at)
    assert seen(ddr, at, 3) == [5, 1, 5]


def test_buffers_begin_at_pages_and_never_touch(ddr: Ddr):
    places = [(ddr.allocate(n), n) for n in (1, 0, PAGE, PAGE + 1, 5)]
    assert all(at % PAGE == 0 for at, _ in places)
    ends = [at + n for at, n in places]
    assert all(after - end >= PAGE for end, (after, _) in zip(ends, places[1:], strict=False))


def test_memory_that_is_given_back_is_given_out_again_as_new(ddr: Ddr):
    first, second = ddr.allocate(PAGE), ddr.allocate(PAGE)
    ddr.write(first, bytes(PAGE))
    ddr.flush(first)
    ddr.free(first)
    assert ddr.allocate(3 * PAGE) > second
    again = ddr.allocate(PAGE)
    assert again == first and seen(ddr, again) == [0xFFFFFFFF] * 2
    assert not ddr.buffer(again).defined


@pytest.mark.parametrize("name", ["pynq-z2", "zcu104", "kv260"])
def test_contiguous_memory_is_what_linux_sets_aside_at_the_end_of_ddr(name: str):
    board = boards.board(name)
    ddr = Ddr(board)
    assert ddr.nbytes == CMA_BYTES[board.family]
    assert ddr.base + ddr.nbytes == board.ddr.bytes
    with pytest.raises(OutOfMemory):
        ddr.allocate(ddr.nbytes)


def test_out_of_memory_says_what_was_asked_is_held_and_is_free():
    ddr = Ddr(PYNQ_Z2, 16 * PAGE)
    held = [ddr.allocate(4 * PAGE), ddr.allocate(4 * PAGE)]
    with pytest.raises(
        OutOfMemory, match=rf"{6 * PAGE} bytes asked, {8 * PAGE} held by buffers, {5 * PAGE} free"
    ) as no:
        ddr.allocate(6 * PAGE)
    assert (no.value.asked, no.value.held, no.value.free) == (6 * PAGE, 8 * PAGE, 5 * PAGE)
    ddr.free(held[1])
    ddr.allocate(6 * PAGE)


@pytest.mark.parametrize("use", ["free", "flush", "invalidate", "read"])
def test_a_buffer_that_was_freed_is_known_no_more(ddr: Ddr, use: str):
    at = ddr.allocate(8)
    ddr.free(at)
    with pytest.raises(Refused, match=rf"no buffer begins at {at:#x}: it was freed"):
        getattr(ddr, use)(at)


def test_reads_and_writes_beyond_a_buffer_are_refused(ddr: Ddr):
    at = ddr.allocate(8)
    for move in (lambda: ddr.write(at, bytes(9)), lambda: ddr.write(at, bytes(4), 6), lambda: ddr.read(at, 9), lambda: ddr.read(at, 4, -1)):  # fmt: skip
        with pytest.raises(Refused, match="it has 8"):
            move()


def test_writes_behind_a_buffer_are_found_and_mended(ddr: Ddr):
    first, second = ddr.allocate(12), ddr.allocate(PAGE)
    ddr.words(second, 1)[:] = 3
    assert ddr.trespassed() == []
    ddr.words(first, 4)[3] = 0
    ddr.words(second, PAGE // 4 + 1)[-1] = 0
    assert [buffer.address for buffer in ddr.trespassed()] == [first, second]
    assert ddr.trespassed() == []


def test_a_result_that_is_not_invalidated_is_old_and_the_board_warns(host: Host):
    arguments = host.reduction(np.ones((2, 64), np.float32))
    host.run("reduce", **arguments)
    old = np.frombuffer(host.machine.read(arguments["out0"]), np.uint32)
    assert (old == 0xFFFFFFFF).all()
    assert b"was not invalidated since a kernel wrote it" in host.machine.files.read("/run/accelops/warnings.json")
    assert (host.result(arguments["out0"]) == 2).all()


def test_linux_says_how_much_contiguous_memory_is_left(host: Host):
    before = host.machine.files.read("/proc/meminfo")
    host.machine.allocate(1 << 20)
    total, free = (int(line.split()[1]) for line in host.machine.files.read("/proc/meminfo").splitlines())
    assert total == 128 << 10
    assert free == int(before.split()[4]) - 1024 - 4
