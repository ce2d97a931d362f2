"""A program beside an emulated board: it fills buffers, writes registers, starts kernels and polls, with no driver."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np

from accelops.targets.fpga.emulator import handoff
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.registers import kernels, offsets

DEADLINE = 60.0  # of a simulation of a few thousand elements
DONE, IDLE = 2, 4
CODES = {"read": "<Q", "write": "<Q", "float32": "<f", "int32": "<i", "uint32": "<I"}


class Host:
    def __init__(self, machine: Machine, folder: Path, tops: tuple[str, ...] = ("adam", "reduce")):
        self.machine, self.board = machine, machine.board
        self.bit = handoff.write(machine.board, tops, folder)
        machine.load(self.bit.read_bytes())

    def buffer(self, values: np.ndarray, flush: bool = True) -> int:
        address = self.machine.allocate(values.nbytes)
        self.machine.write(address, values.tobytes())
        if flush:
            self.machine.flush(address)
        return address

    def result(self, address: int, dtype: type = np.float32) -> np.ndarray:
        self.machine.invalidate(address)
        return np.frombuffer(self.machine.read(address), dtype)

    def memory(self, address: int) -> np.ndarray:
        """What kernels see of the buffer, whatever the cache holds."""
        buffer = self.machine.ddr.buffer(address)
        return self.machine.ddr.words(buffer.address, buffer.nbytes // 4).copy()

    def at(self, top: str, register: str) -> int:
        return handoff.addresses(self.board)[top] + offsets(kernels()[top])[register]

    def write(self, top: str, register: str, value: int) -> None:
        self.machine.mmio_write(self.at(top, register), struct.pack("<I", value))

    def read(self, top: str, register: str) -> int:
        return self.machine.mmio_read(self.at(top, register))

    def start(self, top: str, **arguments: int | float) -> None:
        """Those that are not given are 0."""
        for argument in kernels()[top].arguments:
            if argument.kind != "identity":
                data = struct.pack(CODES[argument.kind], arguments.get(argument.name, 0))
                self.machine.mmio_write(self.at(top, argument.name), data)
        self.write(top, "CTRL", 1)

    def wait(self, top: str) -> int:
        """CTRL as it was read when AP_IDLE came back."""
        deadline = time.monotonic() + DEADLINE
        while not (control := self.read(top, "CTRL")) & IDLE:
            assert time.monotonic() < deadline, f"{top} does not end"
            time.sleep(0.001)
        return control

    def run(self, top: str, **arguments: int | float) -> None:
        self.start(top, **arguments)
        assert self.wait(top) & DONE

    def reduction(self, rows: np.ndarray, **others: int | float) -> dict[str, int | float]:
        """Arguments of a sum of fp32 `rows` (whole beats) into a new buffer."""
        ranks, numel = rows.shape
        flats, out = self.buffer(rows), self.machine.allocate(4 * numel)
        described = self.buffer(np.array([0, numel // self.board.float_lanes, 0, numel], np.uint32))
        named = {f"flats{i}": flats for i in range(4)} | {f"out{i}": out for i in range(4)}
        return named | {"descriptors": described, "buckets": 1, "ranks": ranks, "scale": 1.0} | others

    def step(self, numel: int) -> dict[str, int | float]:
        """Arguments of a step of Adam in place, all arrays ones."""
        arrays = {name: self.buffer(np.ones(numel, np.float32)) for name in ("grad", "weight", "exp_avg", "exp_avg_sq")}
        outs = {f"{name}_out": arrays[name] for name in ("weight", "exp_avg", "exp_avg_sq")}
        factors = {"grad_factor": 1.0, "decay": 1.0, "step_size": 0.5, "inv_root_correction2": 1.0}
        return arrays | outs | factors | {"numel": numel, "beta1_rest": 0.5, "beta2": 0.5, "beta2_rest": 0.5}
