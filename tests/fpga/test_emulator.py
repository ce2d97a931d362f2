"""The emulated board: a kernel's launch from registers to results, memory and cache, and everything it refuses."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from accelops.targets.fpga import boards
from accelops.targets.fpga.emulator import files, handoff
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.registers import kernels, offsets

DEADLINE = 30.0
BOARDS = ("pynq-z2", "zcu104")


class Host:
    """A program on the host: buffers of fp32 and launches, by registers."""

    def __init__(self, machine: Machine, folder: Path, tops: tuple[str, ...] = ("adam", "reduce")):
        self.machine = machine
        machine.load(handoff.write(machine.board, tops, folder).read_bytes())
        self.at = handoff.addresses(machine.board)

    def buffer(self, values: np.ndarray, flush: bool = True) -> int:
        address = self.machine.allocate(values.nbytes)
        self.machine.write(address, values.tobytes())
        if flush:
            self.machine.flush(address)
        return address

    def empty(self, nbytes: int) -> int:
        return self.machine.allocate(nbytes)

    def result(self, address: int, dtype=np.float32) -> np.ndarray:
        self.machine.invalidate(address)
        return np.frombuffer(self.machine.read(address), dtype)

    def start(self, top: str, **arguments: int | float) -> None:
        kernel = kernels()[top]
        for argument in kernel.arguments:
            if argument.kind == "identity":
                continue
            value = arguments.get(argument.name, 0)
            code = "<Q" if argument.pointer else {"float32": "<f", "int32": "<i", "uint32": "<I"}[argument.kind]
            self.write(top, argument.name, struct.pack(code, value))
        self.write(top, "CTRL", struct.pack("<I", 1))

    def write(self, top: str, register: str, data: bytes) -> None:
        self.machine.mmio_write(self.at[top] + offsets(kernels()[top])[register], data)

    def read(self, top: str, register: str) -> int:
        return self.machine.mmio_read(self.at[top] + offsets(kernels()[top])[register])

    def wait(self, top: str) -> int:
        """CTRL as it was read when AP_IDLE came back."""
        deadline = time.monotonic() + DEADLINE
        while not (control := self.read(top, "CTRL")) & 4:
            assert time.monotonic() < deadline, f"{top} does not end"
            time.sleep(0.001)
        return control

    def reduce(self, ranks: int, numel: int, **arguments: int | float) -> dict[str, int | float]:
        """Arguments of a reduction of one fp32 bucket that begins at the first beat."""
        beats = -(-numel // self.machine.board.float_lanes)
        descriptors = self.buffer(np.array([0, beats, 0, numel], np.uint32))
        return {"descriptors": descriptors, "buckets": 1, "ranks": ranks, "scale": 1.0, "flags": 0} | arguments


@pytest.fixture(params=BOARDS)
def machine(request: pytest.FixtureRequest) -> Machine:
    return Machine(boards.board(request.param))


@pytest.fixture
def host(machine: Machine, tmp_path: Path) -> Host:
    return Host(machine, tmp_path)


def ports(name: str, address: int) -> dict[str, int]:
    return {f"{name}{i}": address for i in range(4)}


def test_a_reduction_runs_from_registers_to_results_and_says_what_it_costs(host: Host):
    rows = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    flats, out = host.buffer(rows), host.empty(64 * 4)
    arguments = host.reduce(3, 61) | ports("flats", flats) | ports("out", out)
    arguments["descriptors"] = host.buffer(np.array([0, 64 // host.machine.board.float_lanes, 0, 61], np.uint32))
    host.start("reduce", **arguments)
    assert host.wait("reduce") & 2
    assert np.array_equal(host.result(out)[:61], (rows[0] + rows[1] + rows[2])[:61])
    report = json.loads(host.machine.files.read(files.REPORT))
    assert report["kernel"] == "reduce" and report["faults"] == [] and report["cycles"] > 0
