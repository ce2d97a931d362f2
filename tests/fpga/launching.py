"""Launches that the tests of the driver make, with what they must give: the reduction kernel, whose result numpy gives to the
bit, on a board behind any Link."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from accelops.targets.fpga import model
from accelops.targets.fpga.boards import Board
from accelops.targets.fpga.driver import Driver, Launch
from accelops.targets.fpga.pool import Buffer


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
