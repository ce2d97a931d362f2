"""What a board cannot tell: every mistake of a launch is refused by name before it starts, or told when it has ended."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from accelops.targets.fpga import boards, model
from accelops.targets.fpga.emulator import files
from accelops.targets.fpga.emulator.ddr import Ddr
from accelops.targets.fpga.emulator.faults import Refused, parse
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.emulator.slot import Arguments, Outcome
from accelops.targets.fpga.registers import Kernel

from .host import Host

PYNQ_Z2 = boards.board("pynq-z2")
Change = Callable[[Host, dict[str, int | float]], None]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(Machine(PYNQ_Z2), tmp_path, ("adam", "reduce", "conv_fp32", "conv_int8"))


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def change(**values: int | float) -> Change:
    return lambda host, arguments: arguments.update(values)


def moved(*names: str, by: int) -> Change:
    return lambda host, arguments: arguments.update({name: arguments[name] + by for name in names})


def freed(name: str) -> Change:
    return lambda host, arguments: host.machine.free(int(arguments[name]))


def unflushed(name: str) -> Change:
    return lambda host, arguments: host.machine.write(int(arguments[name]), bytes(8))


def never_flushed(name: str, nbytes: int) -> Change:
    return lambda host, arguments: arguments.update({name: host.machine.allocate(nbytes)})


def same(name: str, other: str) -> Change:
    return lambda host, arguments: arguments.update({name: arguments[other]})


FLATS, OUTS = tuple(f"flats{i}" for i in range(4)), tuple(f"out{i}" for i in range(4))


@pytest.mark.parametrize(
    "mistake, says",
    [
        (change(weight=0xDEAD0000), r"weight reaches from 0xdead0000 to 0xdead0100, which is not inside one buffer"),
        (change(weight=0), r"weight reaches from 0x0 to 0x100, .*there is none before it"),
        (change(numel=65), r"grad reaches from .* to .*, which is not inside one buffer \(the one before it reaches"),
        (moved("grad", by=8), "grad reaches from"),
        (moved("exp_avg_out", by=-8), "exp_avg_out reaches from"),
        (moved("grad", by=4), "grad=0x[0-9a-f]+ is not at a beat of 8 bytes"),
        (freed("exp_avg_sq"), "exp_avg_sq reaches from"),
        (unflushed("grad"), "grad: the buffer at .* was written and not flushed"),
        (never_flushed("grad", 256), "grad: the buffer at .* is read, and nothing was ever flushed into it"),
        (same("weight_out", "grad"), "weight_out overlaps grad|grad overlaps weight_out"),
        (same("exp_avg_out", "weight_out"), "overlaps"),
        (moved("weight_out", by=8), "overlaps"),
        (lambda host, a: a.update(weight=a["weight"] | 1 << 32), "weight reaches from 0x1[0-9a-f]{8} to"),
        (change(flags=1), "max_exp_avg_sq reaches from 0x0"),
        (change(flags=2), "rounded_out reaches from 0x0"),
    ],
)
def test_mistakes_of_an_adam_step_are_refused_by_name(host: Host, mistake: Change, says: str):
    arguments = host.step(64)
    mistake(host, arguments)
    with pytest.raises(Refused, match=f"^adam: .*({says})"):
        host.start("adam", **arguments)
    assert host.read("adam", "CTRL") == 4, "what was refused has not started"
    host.run("adam", **host.step(64))


@pytest.mark.parametrize(
    "mistake, says",
    [
        (change(ranks=4), "flats0 reaches from"),
        (moved(*OUTS, by=8), "out0 reaches from"),
        (change(buckets=2), "descriptors reaches from"),
        (change(buckets=1 << 31), "2147483648 buckets of 3 ranks are not emulated"),
        (unflushed("descriptors"), "descriptors: the buffer at .* was written and not flushed"),
        (moved("out2", by=8), "out0, out1, out2, out3 are not one address"),
        (moved("flats3", by=-8), "flats0, flats1, flats2, flats3 are not one address"),
        (lambda host, a: a.update({name: a["flats0"] + 8 for name in OUTS}), "overlaps"),
    ],
)
def test_mistakes_of_a_reduction_are_refused_by_name(host: Host, mistake: Change, says: str):
    arguments = host.reduction(ones(3, 64))
    mistake(host, arguments)
    with pytest.raises(Refused, match=f"^reduce: .*({says})"):
        host.start("reduce", **arguments)


def test_buckets_that_are_written_over_each_other_are_refused(host: Host):
    arguments = host.reduction(ones(2, 64), buckets=2)
    row = 32 // PYNQ_Z2.float_lanes
    words = np.array([[0, 2 * row, 0, 32], [row, 2 * row, row - 1, 32]], np.uint32)
    with pytest.raises(Refused, match="out0 overlaps out0"):
        host.start("reduce", **arguments | {"descriptors": host.buffer(words)})


def test_a_start_or_an_argument_before_the_kernel_is_ready_is_refused(host: Host):
    host.machine.faults.add(parse("slow=0.3"))
    arguments = host.reduction(ones(2, 64))
    host.start("reduce", **arguments)
    with pytest.raises(Refused, match="reduce is running: an argument was written"):
        host.write("reduce", "ranks", 3)
    with pytest.raises(Refused, match="reduce was started before it was ready"):
        host.write("reduce", "CTRL", 1)
    host.wait("reduce")
    assert (host.result(arguments["out0"]) == 2).all()


def test_auto_restart_is_refused(host: Host):
    with pytest.raises(Refused, match="AUTO_RESTART is not emulated"):
        host.write("reduce", "CTRL", 0x81)


def test_a_buffer_in_use_is_not_synchronised_and_freeing_it_is_told_of(host: Host):
    host.machine.faults.add(parse("slow=0.3"))
    arguments = host.reduction(ones(2, 64))
    host.start("reduce", **arguments)
    host.machine.write(arguments["flats0"], bytes(8))
    for use, name in (("invalidate", "out0"), ("flush", "flats0")):
        with pytest.raises(Refused, match="is in use by reduce, which has not ended"):
            getattr(host.machine, use)(arguments[name])
    host.machine.free(arguments["out0"])
    assert b"is freed, and reduce still computes with it" in host.machine.files.read(files.WARNINGS)
    host.wait("reduce")


class Broken:
    """A kernel that does what kernels must not: it writes where `beyond` says, or counts as `trips`."""

    def __init__(self, ddr: Ddr, beyond: bool, trips: dict[str, tuple[int, ...]] | None):
        self._ddr, self._beyond, self._trips = ddr, beyond, trips

    def start(self, arguments: Arguments) -> Outcome:
        if self._beyond:
            ctypes.memset(self._ddr.host(int(arguments["out0"])) + 256, 0, 4)
        return Outcome(1, trips=self._trips)


def broken(beyond: bool = False, trips: dict[str, tuple[int, ...]] | None = None):
    def slots(kernel: Kernel, board: boards.Board, ddr: Ddr) -> Broken:
        return Broken(ddr, beyond, trips)

    return slots


def test_a_kernel_that_writes_behind_a_buffer_is_told_of_when_it_has_ended(tmp_path: Path):
    host = Host(Machine(PYNQ_Z2, broken(beyond=True)), tmp_path)
    arguments = host.reduction(ones(2, 64))
    host.start("reduce", **arguments)
    with pytest.raises(
        Refused, match=rf"reduce wrote behind the end of the buffer at {arguments['out0']:#x} \(256 bytes"
    ):
        host.wait("reduce")
    assert host.wait("reduce"), "told once"
    (fault,) = json.loads(host.machine.files.read(files.REPORT))["faults"]
    assert "wrote behind the end" in fault


def test_trips_that_are_not_the_modelled_ones_are_a_fault(tmp_path: Path):
    trips = model.reduce(PYNQ_Z2, [64], 2).trips
    for counted, fails in ((trips, False), (trips | {"load": (0, 0, 0, 1)}, True)):
        host = Host(Machine(PYNQ_Z2, broken(trips=counted)), tmp_path)
        host.start("reduce", **host.reduction(ones(2, 64)))
        if fails:
            with pytest.raises(Refused, match=r"reduce: counted trips .*'load': \(0, 0, 0, 1\).*, modelled"):
                host.wait("reduce")
        else:
            host.wait("reduce")
