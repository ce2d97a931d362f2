"""Grouped correlation on a board, what every direction is made of: operands packed and written, one launch a group.

A long sum may be made in parts, over words of channels, which the host adds up in their order: where not all inputs of a
pixel fit the chip, and where smaller launches are modelled to be faster together.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import lru_cache
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accelops.targets.fpga import boards, convolution
from accelops.targets.fpga.convolution import Geometry
from accelops.targets.fpga.device import residence
from accelops.targets.fpga.model import ceil_div

from . import folding, packing, resident
from .correlation import Images, Moves, Pair, Weights

BIAS, RELU = 1, 2  # flags of hls/conv/fp32.hpp
PART_OF_MEMORY = 16  # operands of a launch are to take one part in so many: allocations must be contiguous


class Engine:
    """A board's engine, and the weights that it keeps. As a context it is one thread's."""

    def __init__(self, driver: Any) -> None:
        self.board = driver.board
        array = self.board.sizes["conv_fp32"]
        self.inputs, self.outputs = array["inputs"], array["outputs"]
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

    def correlate_into(
        self, out: Tensor, x: Images, w: Weights, moves: Moves, bias: Tensor | None = None, relu: bool = False
    ) -> None:
        """`correlate`, into `out`; the whole memory of a tensor of the device "fpga" stays on the board where it can."""
        home = residence.home(out)
        stays = home is not None and out.nbytes == home.side.nbytes and not out.shape[2] % self.outputs
        made = self.correlate(x, w, moves, tuple(out.shape[3:]), bias, relu, out if stays else None)
        if made is not None:
            residence.settle(out, writes=True)
            out.copy_(made)

    def correlate(
        self,
        x: Images,
        w: Weights,
        moves: Moves,
        plane: Pair,
        bias: Tensor | None = None,
        relu: bool = False,
        out: Tensor | None = None,
    ) -> Tensor | None:
        """(N, groups, K, *plane); bias (groups, K) and ReLU follow the sum. Sums over weights that come and go were cut to
        measure by the caller; others are made in as many launches as is modelled to be fastest. None where there is an
        `out`, which has a home, and the result is there."""
        g = self._geometry(x, w, moves, plane, w.values.shape[2])
        if min(g.H, g.W) <= 0:  # the padding is all that is left
            total = torch.zeros(len(x.tensor), *w.values.shape[:2], *plane)
            return _finished(total, bias, relu)
        if w.owner is not None:
            dims = folding.choice(self.board.name, g, w.values.shape[2])
            if dims:
                residence.settle(x.tensor)
                x, w, moves = folding.folded(x, w, moves, plane, dims)
        channels = w.values.shape[2]
        most = self._channels_at_once(x, w, moves, plane)
        parts = [(begin, min(begin + most, channels)) for begin in range(0, channels, most)]
        if len(parts) == 1:
            return self._correlate_part(x, w, moves, plane, parts[0], bias, relu, out)
        total = self._correlate_part(x, w, moves, plane, parts[0])
        for part in parts[1:]:
            total += self._correlate_part(x, w, moves, plane, part)
        return _finished(total, bias, relu)

    def _channels_at_once(self, x: Images, w: Weights, moves: Moves, plane: Pair) -> int:
        groups, outputs, channels, *taps = w.values.shape
        words = max(1, self._most_bytes // (4 * groups * self._padded(outputs) * self.inputs * prod(taps)))
        if w.owner is not None:
            words = convolution.words_at_once(self.board.name, self._geometry(x, w, moves, plane, channels), words)
        return words * self.inputs

    def _geometry(self, x: Images, w: Weights, moves: Moves, plane: Pair, channels: int) -> Geometry:
        """Of a launch, without tiles. Its height or width is not positive where a negative padding leaves nothing."""
        groups, outputs, _, *taps = w.values.shape
        words, blocks = ceil_div(channels, self.inputs), ceil_div(outputs, self.outputs)
        return Geometry(
            N=len(x.tensor),
            H=x.tensor.shape[3] + min(0, moves.padding[0]),
            W=x.tensor.shape[4] + min(0, moves.padding[1]),
            C=words,
            K=blocks,
            R=taps[0],
            S=taps[1],
            stride_h=moves.stride[0],
            stride_w=moves.stride[1],
            padding_h=max(0, moves.padding[0]),
            padding_w=max(0, moves.padding[1]),
            dilation_h=moves.dilation[0],
            dilation_w=moves.dilation[1],
            C_total=groups * words,
            K_total=groups * blocks,
            rows=plane[0],
            columns=plane[1],
        )

    def _correlate_part(
        self,
        x: Images,
        w: Weights,
        moves: Moves,
        plane: Pair,
        part: Pair,
        bias: Tensor | None = None,
        relu: bool = False,
        out: Tensor | None = None,
    ) -> Tensor | None:
        """The sum over channels from and to `part`; None where it is in the home of `out`."""
        groups, outputs = w.values.shape[:2]
        shape, g = (len(x.tensor), groups, outputs, *plane), self._geometry(x, w, moves, plane, part[1] - part[0])
        g = planned(self.board.name, g)
        with ExitStack() as held:
            y_bytes = 4 * groups * g.N * g.K * g.P * g.Q * self.outputs
            if out is None:
                y = held.enter_context(self._resident.allocate(y_bytes))
            else:  # the result stays there, in the layout that images of whole words have
                home, (seen, layout) = residence.home(out), packing.layout(out, self.outputs, self.outputs)
                y = home.to_be_written(seen, layout, y_bytes)
            buffers = {
                "x": self._images(x, part, moves.padding),
                "bias": None if bias is None else self._bias(bias, held),
                "w": self._weights(w, part, held),  # last: what stays on the board makes room for all others
                "y": y,
            }
            self._launch(g, groups, buffers, BIAS * (bias is not None) | RELU * relu)
            if out is None:
                return self._results(y, shape)
            home.written(seen, layout, lambda y: out.copy_(self._results(y, shape)))
            return None

    def _results(self, y: Any, shape: tuple[int, ...]) -> Tensor:
        return packing.results(torch.from_numpy(y.read(np.float32, y.nbytes // 4)), shape, self.outputs)

    def _bias(self, bias: Tensor, held: ExitStack) -> Any:
        home = residence.home(bias)
        if home is None:
            return held.enter_context(self._written(packing.bias(bias, self.outputs)))
        return home.read(bias, ("bias", self.outputs), lambda: packing.bias(bias, self.outputs))

    def _images(self, x: Images, part: Pair, padding: Pair) -> Any:
        above, left = (max(0, -p) for p in padding)
        seen, home = x.tensor[:, :, slice(*part), above:, left:], residence.home(x.tensor)
        if home is not None:
            name = packing.layout(seen, self.inputs, self.outputs)
            return home.read(*name, lambda: packing.images(seen, self.inputs, self.outputs))
        key = (*part, above, left)
        if key not in x.on_board:
            x.on_board[key] = self._written(packing.images(seen, self.inputs, self.outputs))
        return x.on_board[key]

    def _weights(self, w: Weights, part: Pair, held: ExitStack) -> Any:
        values = w.values[:, :, slice(*part)]
        if w.owner is None:
            return held.enter_context(self._written(packing.weights(values, self.inputs, self.outputs)))
        key = (*w.part, part)
        return self._resident.weights(w.owner, key, values, lambda: packing.weights(values, self.inputs, self.outputs))

    def _written(self, packed: Tensor) -> Any:
        buffer = self._resident.allocate(packed.nbytes)
        buffer.write(packed)
        return buffer

    def _launch(self, g: Geometry, groups: int, buffers: dict[str, Any], flags: int) -> None:
        """One launch a group."""
        estimate = convolution.conv_fp32(self.board, g, bool(flags & BIAS))
        steps = {
            "x": 4 * g.C * self.inputs * g.H * g.W,
            "w": 4 * g.sets * self.inputs * self.outputs,
            "bias": 4 * g.K * self.outputs,
            "y": 4 * g.K * g.P * g.Q * self.outputs,
        }
        for group in range(groups):
            at = {name: None if b is None else (b, group * steps[name]) for name, b in buffers.items()}
            self._driver.run("conv_fp32", estimate, **at, **g.arguments(), flags=flags)


def _finished(total: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    if bias is not None:
        total += bias[:, :, None, None]
    return total.relu_() if relu else total


@lru_cache(maxsize=65536)
def planned(name: str, g: Geometry) -> Geometry:
    """With the tiles that are modelled to be fastest on the board `name`."""
    return convolution.planned("conv_fp32", boards.board(name), g)
