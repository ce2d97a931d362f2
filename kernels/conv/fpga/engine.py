"""Grouped correlation on a board, what every direction is made of: operands packed and written, one launch a group.

Where the inputs of a single pixel do not fit the chip, the sum is cut into parts, over words of channels, or over taps where
these lie too far apart, and the host adds up the parts, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accelops.targets.fpga import boards, convolution
from accelops.targets.fpga.convolution import Geometry
from accelops.targets.fpga.model import ceil_div

from . import packing, resident

BIAS, RELU = 1, 2  # flags of hls/conv/fp32.hpp
PART_OF_MEMORY = 16  # operands of a launch are to take one part in so many: allocations must be contiguous

Pair = tuple[int, int]


@dataclass(frozen=True)
class Moves:
    """How the kernel goes over the images; a negative padding leaves out their first rows or columns."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)


class Images:
    """(N, groups, C, H, W), and as a context what of them lies on the board."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.on_board: dict[tuple[int, ...], Any] = {}

    def __enter__(self) -> Images:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self.on_board:
            self.on_board.popitem()[1].free()


@dataclass(frozen=True)
class Weights:
    """(groups, K, C, R, S). Where they are the part `part` of `owner`, they stay on the board as long as it lives and they
    do not change."""

    values: Tensor
    owner: Tensor | None = None
    part: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _Part:
    """Of the sum: channels, rows and columns of the kernel, each from and to."""

    channels: Pair
    rows: Pair
    columns: Pair


class Engine:
    """A board's engine, and the weights that it keeps. As a context it is one thread's."""

    def __init__(self, driver: Any) -> None:
        self.board = driver.board
        array = self.board.sizes["conv_fp32"]
        self.inputs, self.outputs, self.input_words = array["inputs"], array["outputs"], array["input_words"]
        self._driver = driver
        self._resident = resident.on(driver)

    def __enter__(self) -> Engine:
        self._resident.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resident.__exit__(kind, error, trace)

    def images_at_once(self, *sides: tuple[int, ...]) -> int:
        """How many images of (groups, channels, rows, columns) on each of the sides are to be on the board at a time."""
        bytes_each = sum(4 * g * self._padded(c) * h * w for g, c, h, w in sides)
        return max(1, self._most_bytes // max(1, bytes_each))

    @property
    def _most_bytes(self) -> int:
        return self.board.ddr.bytes // PART_OF_MEMORY

    def _padded(self, channels: int) -> int:
        return ceil_div(channels, self.inputs) * self.inputs

    def correlate(
        self, x: Images, w: Weights, moves: Moves, plane: Pair, bias: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        """(N, groups, K, *plane); bias (groups, K) and ReLU follow the sum."""
        parts = list(self._parts(x, w, moves, plane))
        if len(parts) == 1:
            return self._correlate_part(x, w, moves, plane, parts[0], bias, relu)
        total = self._correlate_part(x, w, moves, plane, parts[0])
        for part in parts[1:]:
            total += self._correlate_part(x, w, moves, plane, part)
        if bias is not None:
            total += bias[:, :, None, None]
        return total.relu_() if relu else total

    def _parts(self, x: Images, w: Weights, moves: Moves, plane: Pair) -> Iterator[_Part]:
        """Of a sum over weights that come and go, as few as fit the chip and the memory: it is a part already. Of others,
        whose launches are large, as many as are modelled to be fastest."""
        groups, outputs, channels, rows, columns = w.values.shape
        down, across = rows, columns
        if _span(rows, moves.dilation[0]) * _span(columns, moves.dilation[1]) > self.input_words:
            down = 1
            if _span(columns, moves.dilation[1]) > self.input_words:
                across = 1
        word_bytes = 4 * groups * self._padded(outputs) * self.inputs * down * across
        most = min(
            self.input_words // (_span(down, moves.dilation[0]) * _span(across, moves.dilation[1])),
            max(1, self._most_bytes // word_bytes),
        )
        if w.owner is not None:
            first = _Part((0, channels), (0, down), (0, across))
            most = convolution.words_at_once(self.board.name, self._geometry(x, w, moves, plane, first), most)
        deep = most * self.inputs
        for r in range(0, rows, down):
            for s in range(0, columns, across):
                for c in range(0, channels, deep):
                    yield _Part((c, min(c + deep, channels)), (r, r + down), (s, s + across))

    def _geometry(self, x: Images, w: Weights, moves: Moves, plane: Pair, part: _Part) -> Geometry:
        """Of a launch, without tiles. Its height or width is not positive where the padding is all that is left."""
        groups, outputs = w.values.shape[:2]
        words = ceil_div(part.channels[1] - part.channels[0], self.inputs)
        blocks = ceil_div(outputs, self.outputs)
        down, across = self._padding(moves, part)
        return Geometry(
            N=len(x.tensor),
            H=x.tensor.shape[3] + min(0, down),
            W=x.tensor.shape[4] + min(0, across),
            C=words,
            K=blocks,
            R=part.rows[1] - part.rows[0],
            S=part.columns[1] - part.columns[0],
            stride_h=moves.stride[0],
            stride_w=moves.stride[1],
            padding_h=max(0, down),
            padding_w=max(0, across),
            dilation_h=moves.dilation[0],
            dilation_w=moves.dilation[1],
            C_total=groups * words,
            K_total=groups * blocks,
            rows=plane[0],
            columns=plane[1],
        )

    def _padding(self, moves: Moves, part: _Part) -> Pair:
        """Before the first of the part's taps; negative where that leaves out rows or columns of the images."""
        (down, across), (r, s) = moves.padding, (part.rows[0], part.columns[0])
        return down - r * moves.dilation[0], across - s * moves.dilation[1]

    def _correlate_part(
        self,
        x: Images,
        w: Weights,
        moves: Moves,
        plane: Pair,
        part: _Part,
        bias: Tensor | None = None,
        relu: bool = False,
    ) -> Tensor:
        groups, outputs = w.values.shape[:2]
        shape, g = (len(x.tensor), groups, outputs, *plane), self._geometry(x, w, moves, plane, part)
        if min(g.H, g.W) <= 0:
            made = torch.zeros(shape) if bias is None else bias[:, :, None, None].expand(shape).clone()
            return made.relu_() if relu else made
        left_out = [max(0, -p) for p in self._padding(moves, part)]
        with ExitStack() as held:
            buffers = {
                "x": self._images(x, part.channels, left_out),
                "w": self._weights(w, part, held),
                "bias": None if bias is None else held.enter_context(self._written(packing.bias(bias, self.outputs))),
            }
            flat = self._launch(planned(self.board.name, g), groups, buffers, BIAS * (bias is not None) | RELU * relu)
        return packing.results(flat, shape, self.outputs)

    def _images(self, x: Images, channels: Pair, left_out: list[int]) -> Any:
        key = (*channels, *left_out)
        if key not in x.on_board:
            seen = x.tensor[:, :, slice(*channels), left_out[0] :, left_out[1] :]
            x.on_board[key] = self._written(packing.images(seen, self.inputs, self.outputs))
        return x.on_board[key]

    def _weights(self, w: Weights, part: _Part, held: ExitStack) -> Any:
        values = w.values[:, :, slice(*part.channels), slice(*part.rows), slice(*part.columns)]
        if w.owner is None:
            return held.enter_context(self._written(packing.weights(values, self.inputs, self.outputs)))
        key = (*w.part, part)
        return self._resident.weights(w.owner, key, values, lambda: packing.weights(values, self.inputs, self.outputs))

    def _written(self, packed: Tensor) -> Any:
        buffer = self._driver.allocate(packed.nbytes)
        buffer.write(packed)
        return buffer

    def _launch(self, g: Geometry, groups: int, buffers: dict[str, Any], flags: int) -> Tensor:
        """One launch a group; y as it lies on the board."""
        estimate = convolution.conv_fp32(self.board, g, bool(flags & BIAS))
        y_bytes = 4 * g.K * g.P * g.Q * self.outputs
        steps = {
            "x": 4 * g.C * self.inputs * g.H * g.W,
            "w": 4 * g.sets * self.inputs * self.outputs,
            "bias": 4 * g.K * self.outputs,
            "y": y_bytes,
        }
        with self._driver.allocate(g.N * groups * y_bytes) as y:
            for group in range(groups):
                at = {name: b and (b, group * steps[name]) for name, b in {**buffers, "y": y}.items()}
                self._driver.run("conv_fp32", estimate, **at, **g.arguments(), flags=flags)
            return torch.from_numpy(y.read(np.float32, g.N * groups * y_bytes // 4))


def _span(taps: int, dilation: int) -> int:
    return (taps - 1) * dilation + 1


@lru_cache(maxsize=65536)
def planned(name: str, g: Geometry) -> Geometry:
    """With the tiles that are modelled to be fastest on the board `name`."""
    return convolution.planned("conv_fp32", boards.board(name), g)
