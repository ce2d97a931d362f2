"""A board as an engine: the weights it keeps, the buffers of activations, the launches.

Weights and constants cross once for each board and stay; they are forgotten when the board fails, because what its memory
then holds is not known.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from accelops.targets.fpga.boards import Board

from .packing import ENGINE, RAW, Form, Packed, packed_image, unpacked_image
from .program import Sizes


class Resident(NamedTuple):
    weights: Any
    constants: Any


class OnBoard:
    """`driver`: of the board (accelops.targets.fpga.driver). `launched` counts; `seconds` and `cycles` of the launches as
    the driver tells them, cycles None where the board tells none, as a real one does."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.launched, self.seconds = 0, 0.0
        self.cycles: int | None = None
        self._resident: dict[Packed, Resident] = {}

    @property
    def board(self) -> Board:
        return self.driver.board

    def place(self, image: Tensor, form: Form) -> Any:
        return None if image.numel() == 0 else self._filled(packed_image(image, form, self.board))

    def convolve(self, packed: Packed, x: Any, sizes: Sizes) -> Any:
        n, _, h, w = sizes
        result = packed.layer.sizes(n, h, w)
        if x is None or prod(result) == 0:
            return None
        weights, constants = self._weights(packed)
        outputs = packed.weights.shape[-2]
        y = self.driver.allocate(n * packed.result.blocks * result[2] * result[3] * outputs * self._bytes(packed))
        try:
            estimate, geometry = packed.estimate(n, h, w), packed.geometry(n, h, w).arguments()
            flags = RAW if packed.layer.raw else 0
            for i in range(packed.cut.number):
                at_x = x, i * packed.cut.in_blocks * h * w * outputs
                at_y = y, i * packed.cut.out_blocks * result[2] * result[3] * outputs * self._bytes(packed)
                operands = {
                    **{"x": at_x, "x1": at_x, "y": at_y, "y1": at_y},  # the same through two ports
                    "w": (weights, i * packed.weights[0].nbytes),
                    "scale": (constants, i * packed.constants[0].nbytes),
                }
                launch = self.driver.run(
                    ENGINE, estimate, **operands, **geometry, flags=flags, lowest=packed.layer.lowest
                )
                self._count(launch)
        except BaseException:
            y.free()
            raise
        return y

    def fetch(self, packed: Packed, y: Any, sizes: Sizes) -> Tensor:
        n, _, p, q = sizes
        dtype = np.int32 if packed.layer.raw else np.int8
        if y is None:
            return torch.empty(sizes, dtype=torch.int32 if packed.layer.raw else torch.int8)
        shape = (n, packed.result.blocks, p, q, packed.weights.shape[-2])
        return unpacked_image(y.read(dtype, prod(shape)).reshape(shape), packed.result)

    def free(self, value: Any) -> None:
        if value is not None:
            value.free()

    def forget(self) -> None:
        """Gives up the weights that the board holds."""
        while self._resident:
            _, resident = self._resident.popitem()
            for buffer in resident:
                buffer.free()

    def _weights(self, packed: Packed) -> Resident:
        if packed not in self._resident:
            weights = self._filled(packed.weights)
            try:
                self._resident[packed] = Resident(weights, self._filled(packed.constants))
            except BaseException:
                weights.free()
                raise
        return self._resident[packed]

    def _filled(self, content: np.ndarray) -> Any:
        buffer = self.driver.allocate(content.nbytes)
        try:
            buffer.write(content)
        except BaseException:
            buffer.free()
            raise
        return buffer

    @staticmethod
    def _bytes(packed: Packed) -> int:
        """Of an element of its result."""
        return 4 if packed.layer.raw else 1

    def _count(self, launch: Any) -> None:
        self.launched += 1
        self.seconds += launch.seconds
        if launch.cycles is not None:
            self.cycles = (self.cycles or 0) + launch.cycles
