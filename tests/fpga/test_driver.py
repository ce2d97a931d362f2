"""The driver on emulated boards, in this process and behind the real pynq client: launches, buffers, overlays."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from accelops.targets.fpga import boards, model
from accelops.targets.fpga.driver import Driver
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.errors import BoardLost
from accelops.targets.fpga.pool import SMALLEST, size_class

from .in_process import InProcess
from .launching import WIRES, Sum, check_sum, driving, nothing, random_rows


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["pynq-z2", "zcu104"])
def driver(request: pytest.FixtureRequest, wire: str):
    with driving(Machine(boards.board(request.param)), wire) as made:
        yield made


@pytest.fixture
def small(wire: str):
    with driving(Machine(boards.board("pynq-z2")), wire) as made:
        yield made


def adam_of_nothing(driver: Driver):
    return driver.run("adam", model.adam(driver.board, 0), **nothing(driver.board))


def test_a_launch_gives_numpys_result_and_the_modelled_cycles(driver: Driver):
    launch = check_sum(driver, seed=0, ranks=3, numel=101)
    assert launch.cycles == launch.estimate.cycles == model.reduce(driver.board, [101], 3).cycles
    assert launch.seconds > 0 and driver.emulated


@pytest.mark.parametrize("numel", [1, 2, 64])
def test_sizes(small: Driver, numel: int):
    check_sum(small, seed=numel, numel=numel)


def test_inputs_that_stay_are_flushed_once(small: Driver):
    s = Sum(small, random_rows(1, 2, 50))
    flats, descriptors = s.inputs()
    out = s.output()
    s.run(flats, descriptors, out)
    before = small.moved.flushed
    for _ in range(3):
        s.run(flats, descriptors, out)
    assert small.moved.flushed == before
    assert np.array_equal(s.result(out), s.expected())
    fetched = small.moved.fetched
    s.result(out)
    assert small.moved.fetched == fetched, "nothing was written since it was read"


def test_memory_that_was_written_for_nobody_is_flushed_before_it_takes_a_result(small: Driver):
    """Else the processor's cache may write those lines over the result, whenever it needs their room."""
    s = Sum(small, random_rows(3, 2, 50))
    flats, descriptors = s.inputs()
    first = s.output()
    s.run(flats, descriptors, first)
    unused = small.allocate(first.nbytes)
    unused.write(np.zeros(first.nbytes, np.uint8))
    address, before = unused.address, small.moved.flushed
    unused.free()
    out = small.allocate(first.nbytes)
    assert out.address == address
    s.run(flats, descriptors, out)
    assert small.moved.flushed - before == size_class(first.nbytes)
    assert np.array_equal(s.result(out), s.expected())


def test_a_part_written_into_a_result_keeps_the_rest_of_it(small: Driver):
    """The whole buffer is flushed, so that what a launch wrote must be fetched before a part of it is overwritten."""
    s = Sum(small, random_rows(2, 2, 64))
    flats, descriptors = s.inputs()
    out = s.output()
    s.run(flats, descriptors, out)
    out.write(np.full(4, 7, np.float32), offset=32)
    again = Sum(small, np.zeros((1, 1), np.float32))
    again.run(*again.inputs(), again.output())  # another launch, which does not touch it
    empty = Sum(small, np.zeros((1, 2), np.float32))
    nothing_flats, nothing_descriptors = empty.inputs()
    empty.run(nothing_flats, nothing_descriptors, out)  # flushes it, and writes its first two
    expected = s.expected()
    expected[8:12], expected[:2] = 7, 0
    assert np.array_equal(out.read(np.float32, 64), expected)


def test_submitted_launches_run_in_order_and_reading_waits_for_them(small: Driver):
    first, second = Sum(small, random_rows(3, 2, 40)), Sum(small, random_rows(4, 2, 40))
    inputs = first.inputs(), second.inputs()
    out = first.output()
    futures = [s.submit(*of_s, out) for s, of_s in zip((first, second), inputs, strict=True)]
    assert np.array_equal(second.result(out), second.expected())
    assert all(future.done() for future in futures)
    assert futures[0].result().kernel == "reduce"


def test_a_launch_runs_after_all_that_were_submitted(small: Driver):
    first, second = Sum(small, random_rows(5, 2, 30)), Sum(small, random_rows(6, 2, 30))
    inputs = first.inputs(), second.inputs()
    out = first.output()
    for _ in range(20):  # some of them still wait
        first.submit(*inputs[0], out)
    second.run(*inputs[1], out)
    assert small.counts.launches == 21
    assert np.array_equal(second.result(out), second.expected())


def test_threads_share_a_board(small: Driver):
    failures = []

    def work(seed: int) -> None:
        try:
            for i in range(5):
                check_sum(small, seed=10 * seed + i)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert small.counts.launches == 20


def test_the_overlay_with_the_kernel_is_loaded_and_switches_are_counted(small: Driver):
    assert adam_of_nothing(small).switched is False
    assert check_sum(small, seed=7).switched is True
    assert check_sum(small, seed=8).switched is False
    assert adam_of_nothing(small).switched is True
    assert (small.counts.loads, small.counts.switches, small.counts.reloads) == (3, 2, 0)


def test_larger_boards_hold_both_and_never_switch(wire: str):
    with driving(Machine(boards.board("zcu104")), wire) as zcu104:
        adam_of_nothing(zcu104)
        check_sum(zcu104, seed=9)
        assert zcu104.counts.switches == 0


def test_buffers_take_any_bytes(small: Driver):
    with small.allocate(64) as buffer:
        buffer.write(torch.arange(8, dtype=torch.bfloat16), offset=16)
        assert buffer.read(np.uint16, 8, offset=16).tolist() == torch.arange(8.0).bfloat16().view(torch.int16).tolist()
        buffer.write(torch.arange(12.0).reshape(3, 4).t())  # not contiguous
        assert buffer.read(np.float32, 4).tolist() == [0, 4, 8, 1]
        buffer.write(np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2])
        assert buffer.read(np.int32, 3).tolist() == [0, 2, 4]
        buffer.write(torch.empty(0))
        assert len(buffer.read(np.float32, 0)) == 0


def test_what_is_read_is_a_copy(small: Driver):
    with small.allocate(16) as buffer:
        buffer.write(np.ones(4, np.float32))
        taken = buffer.read(np.float32, 4)
        buffer.write(np.zeros(4, np.float32))
    assert taken.tolist() == [1] * 4


def test_size_classes_waste_at_most_a_fifth():
    for nbytes in (1, 4096, 4097, 5000, 5120, 5121, 65537, 10**6, 2**30, 2**30 + 1):
        size = size_class(nbytes)
        assert size >= nbytes and (size == SMALLEST or (size - nbytes) / size <= 0.2)
    assert len({size_class(n) for n in range(4097, 8193)}) == 4


def test_memory_is_used_again_and_given_back(small: Driver):
    a = small.allocate(5000)
    address = a.address
    assert small.held == size_class(5000)
    a.free()
    a.free()
    assert small.held == 0
    b = small.allocate(4500)
    assert b.address == address
    del b
    assert small.held == 0, "a buffer that nobody holds is free"
    with pytest.raises(ValueError, match="freed"):
        a.read(np.uint8, 1)
    with pytest.raises(ValueError, match="freed"):
        a.write(np.zeros(5000, np.uint8))


def test_a_closed_driver_has_given_its_memory_back_and_is_of_no_use(wire: str):
    machine = Machine(boards.board("pynq-z2"))
    with driving(machine, wire) as driver:
        buffer = driver.allocate(10)
        assert machine.ddr.held == SMALLEST
        driver.close()
        for use in (
            lambda: driver.allocate(10),
            lambda: buffer.write(np.zeros(10, np.int8)),
            lambda: buffer.read("u1", 1),
        ):
            with pytest.raises(BoardLost, match="was closed"):
                use()
        assert machine.ddr.held == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"numel": -1}, ValueError, "numel=-1 is no uint32"),
        ({"numel": 2**32}, ValueError, "numel=4294967296 is no uint32"),
        ({"numel": 1.5}, ValueError, "numel=1.5 is no uint32"),
        ({"eps": 1e300}, ValueError, "eps=1e[+]300 is no float32"),
        ({"grad": 0x1000}, TypeError, "grad: expected a Buffer"),
        ({"gradient": None}, TypeError, "adam takes grad, weight"),
    ],
)
def test_arguments_that_the_kernel_cannot_take(small: Driver, change: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        small.run("adam", model.adam(small.board, 0), **(nothing(small.board) | change))


def test_a_missing_argument_is_named(small: Driver):
    arguments = nothing(small.board)
    del arguments["eps"]
    with pytest.raises(TypeError, match=r"adam takes .*eps"):
        small.run("adam", model.adam(small.board, 0), **arguments)


def test_pointers_lie_in_a_buffer_of_this_board_at_a_beat(small: Driver):
    other = Driver(InProcess(Machine(small.board)))
    with small.allocate(64) as mine, other.allocate(64) as others:
        for pointer, message in (((mine, 4), "beat of 8"), ((mine, 72), "64 bytes"), (others, "another board's")):
            with pytest.raises(ValueError, match=message):
                small.run("adam", model.adam(small.board, 0), **(nothing(small.board) | {"grad": pointer}))
    other.close()


def test_a_pointer_reaches_into_its_buffer(small: Driver):
    s = Sum(small, random_rows(11, 2, 16))
    flats, descriptors = s.inputs()
    wide = small.allocate(s.nbytes + 128)
    wide.write(np.full((s.nbytes + 128) // 4, 5, np.float32))
    ports = {f"flats{i}": flats for i in range(4)} | {f"out{i}": (wide, 64) for i in range(4)}
    estimate = model.reduce(small.board, [16], 2)
    small.run("reduce", estimate, **ports, descriptors=descriptors, buckets=1, ranks=2, scale=1.0, flags=0)
    got = wide.read(np.float32, 48)
    assert np.array_equal(got[16:32], s.expected())
    assert (got[:16] == 5).all() and (got[32:] == 5).all()


def test_unknown_kernels_and_estimates_of_another_board_are_refused(small: Driver):
    with pytest.raises(ValueError, match="kernel='gemm' is none of adam"):
        small.run("gemm", model.adam(small.board, 0))
    with pytest.raises(ValueError, match="estimate is for zcu104, the board is pynq-z2"):
        small.run("adam", model.adam(boards.board("zcu104"), 0), **nothing(small.board))


def test_what_does_not_fit_into_a_buffer_is_refused(small: Driver):
    with small.allocate(16) as buffer:
        with pytest.raises(ValueError, match="20 bytes at offset 0 do not fit into a buffer of 16"):
            buffer.write(np.zeros(5, np.float32))
        with pytest.raises(ValueError, match="do not fit"):
            buffer.write(np.zeros(1, np.float32), offset=-4)
        with pytest.raises(ValueError, match="the buffer has 16 bytes"):
            buffer.read(np.float32, 5)
        with pytest.raises(ValueError, match="on meta"):
            buffer.write(torch.empty(2, device="meta"))
    with pytest.raises(ValueError, match="nbytes=-1"):
        small.allocate(-1)
