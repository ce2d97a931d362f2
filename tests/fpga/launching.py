"""What the tests of the driver share: emulated boards behind both wires, and launches with what they must give: the
reduction kernel, whose result numpy gives to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pytest

from accelops.targets.fpga import discovery, model
from accelops.targets.fpga.boards import Board
from accelops.targets.fpga.driver import Driver, Launch
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.emulator.server import Server
from accelops.targets.fpga.pool import Buffer

from .in_process import InProcess

PYNQ = pytest.mark.skipif(find_spec("pynq") is None, reason="needs pynq: nox -s fpga")
WIRES = ("in process", pytest.param("pynq", marks=PYNQ))


@contextmanager
def serving(machine: Machine, port: int = 0) -> Iterator[Server]:
    server = Server(machine, port)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def driving(machine: Machine, wire: str) -> Iterator[Driver]:
    """`machine` in this process, or behind gRPC and the real pynq client."""
    if wire == "in process":
        with closing(Driver(InProcess(machine))) as driver:
            yield driver
    else:
        with serving(machine) as server, closing(discovery.connect("127.0.0.1", server.port)) as driver:
            yield driver


@dataclass(frozen=True)
class Sum:
    """scale * (row 0 + row 1 + ...) of `rows`, fp32, by one launch: each row in whole beats, in one buffer."""

    driver: Driver
    rows: np.ndarray
    scale: float = 1.0

    @property
    def stride(self) -> int:
        """Beats of a row."""
        return model.ceil_div(self.rows.shape[1], self.driver.board.float_lanes)

    @property
    def nbytes(self) -> int:
        return self.stride * self.driver.board.beat_bytes

    def inputs(self) -> tuple[Buffer, Buffer]:
        ranks, numel = self.rows.shape
        padded = np.full((ranks, self.stride * self.driver.board.float_lanes), np.nan, np.float32)
        padded[:, :numel] = self.rows
        flats, descriptors = self.driver.allocate(padded.nbytes), self.driver.allocate(16)
        flats.write(padded)
        descriptors.write(np.array([0, self.stride, 0, numel], np.uint32))
        return flats, descriptors

    def output(self) -> Buffer:
        out = self.driver.allocate(self.nbytes)
        out.write(np.full(self.nbytes // 4, np.nan, np.float32))
        return out

    def submit(self, flats: Buffer, descriptors: Buffer, out: Buffer) -> Future[Launch]:
        return self.driver.submit(*self._launch(), **self._arguments(flats, descriptors, out))

    def run(self, flats: Buffer, descriptors: Buffer, out: Buffer) -> Launch:
        return self.driver.run(*self._launch(), **self._arguments(flats, descriptors, out))

    def expected(self) -> np.ndarray:
        total = self.rows[0].copy()
        for row in self.rows[1:]:
            total += row
        return total * np.float32(self.scale)

    def result(self, out: Buffer) -> np.ndarray:
        return out.read(np.float32, self.rows.shape[1])

    def _launch(self) -> tuple[str, model.Estimate]:
        return "reduce", model.reduce(self.driver.board, [self.rows.shape[1]], len(self.rows))

    def _arguments(self, flats: Buffer, descriptors: Buffer, out: Buffer) -> dict[str, Buffer | int | float]:
        ports = {f"flats{i}": flats for i in range(4)} | {f"out{i}": out for i in range(4)}
        return {
            **ports,
            "descriptors": descriptors,
            "buckets": 1,
            "ranks": len(self.rows),
            "scale": self.scale,
            "flags": 0,
        }


def random_rows(seed: int, ranks: int, numel: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((ranks, numel), np.float32)


def prepared(driver: Driver, seed: int = 1) -> tuple[Sum, Buffer, Buffer, Buffer]:
    """A sum with its inputs, sent at its launch, and its output."""
    s = Sum(driver, random_rows(seed, 2, 37))
    return s, *s.inputs(), s.output()


def check_sum(driver: Driver, seed: int, ranks: int = 2, numel: int = 37) -> Launch:
    """One launch; its result must be numpy's to the bit."""
    s = Sum(driver, random_rows(seed, ranks, numel), scale=0.3)
    with s.output() as out:
        flats, descriptors = s.inputs()
        launch = s.run(flats, descriptors, out)
        assert np.array_equal(s.result(out), s.expected())
    return launch


def nothing(board: Board) -> dict[str, float | None]:
    """Arguments of an Adam launch over no elements."""
    factors = (
        "grad_factor",
        "l2",
        "decay",
        "beta1_rest",
        "beta2",
        "beta2_rest",
        "step_size",
        "inv_root_correction2",
        "eps",
    )
    state = ("weight", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    pointers = ("grad", "rounded_out", *state, *(f"{name}_out" for name in state))
    return dict.fromkeys(pointers) | dict.fromkeys(factors, 0.0) | {"numel": 0, "flags": 0}
