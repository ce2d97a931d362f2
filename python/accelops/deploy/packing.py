"""A quantised layer on one board: where its channels lie, its operands as the engine reads them, its launches, their cost.

hls/conv/tiles.hpp has the layouts: channels in blocks of `outputs`, words of `inputs`. Groups are launches: as many groups
as a block holds go together, their weights on the diagonal of one dense set that is padded to whole blocks in any case, so
that a depthwise layer takes a launch for each block instead of one for each channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from accelops.targets.fpga import boards
from accelops.targets.fpga.boards import Board
from accelops.targets.fpga.convolution import Geometry, conv_int8, planned
from accelops.targets.fpga.model import Estimate, ceil_div

from .graph import Layer
from .quantise import Quantised, too_long

ENGINE = "conv_int8"
RAW = 1  # a flag of the engine: y is the int32 sums


@dataclass(frozen=True)
class Form:
    """Channels of an image on a board: `segment` of them from every `stride`-th place on, in `blocks` blocks in all."""

    channels: int
    segment: int
    stride: int
    blocks: int

    @property
    def places(self) -> Tensor:
        channel = torch.arange(self.channels)
        return channel // self.segment * self.stride + channel % self.segment

    def alike(self, other: Form) -> bool:
        """Whether each channel lies at the same place."""
        return self.channels == other.channels and bool(torch.equal(self.places, other.places))


def dense(channels: int, board: Board) -> Form:
    """One after the other, in whole words."""
    array = board.sizes[ENGINE]
    blocks = array["inputs"] // array["outputs"] * ceil_div(channels, array["inputs"])
    return Form(channels, channels, channels, blocks)


@dataclass(frozen=True)
class Launches:
    """How a layer is cut: `number` launches, each reading `words` words of channels from every `in_blocks`-th block on and
    writing `out_blocks` blocks. `merged` groups share a launch."""

    number: int
    merged: int
    words: int
    in_blocks: int
    out_blocks: int


def launches(layer: Layer, board: Board, source: Form | None = None) -> Launches:
    """`source`: how the input lies, which a layer without groups takes as it is."""
    outputs, blocks_of_word = _array(board)
    channels, features = layer.weight.shape[1], len(layer.weight) // layer.groups
    if layer.groups == 1:
        reached = 1 + int((source or dense(channels, board)).places[-1])
        words = ceil_div(reached, outputs * blocks_of_word)
        return Launches(1, 1, words, words * blocks_of_word, ceil_div(features, outputs))
    merged = min(layer.groups, max(1, outputs // max(channels, features)))
    in_blocks = ceil_div(merged * channels, outputs)
    number = ceil_div(layer.groups, merged)
    return Launches(
        number, merged, ceil_div(in_blocks, blocks_of_word), in_blocks, ceil_div(merged * features, outputs)
    )


def read_form(layer: Layer, board: Board) -> Form:
    """How a layer wants its input to lie."""
    if layer.groups == 1:
        return dense(layer.weight.shape[1], board)
    outputs, blocks_of_word = _array(board)
    cut, channels = launches(layer, board), layer.weight.shape[1]
    reached = (
        cut.number - 1
    ) * cut.in_blocks + cut.words * blocks_of_word  # the last word may reach beyond the last block
    blocks = ceil_div(reached, blocks_of_word) * blocks_of_word
    return Form(channels * layer.groups, cut.merged * channels, cut.in_blocks * outputs, blocks)


def written_form(layer: Layer, board: Board, blocks: int = 0) -> Form:
    """How its result lies, in at least `blocks` blocks and in whole words."""
    outputs, blocks_of_word = _array(board)
    cut = launches(layer, board)
    blocks = ceil_div(max(blocks, cut.number * cut.out_blocks), blocks_of_word) * blocks_of_word
    features = len(layer.weight)
    return Form(features, cut.merged * (features // layer.groups), cut.out_blocks * outputs, blocks)


def _array(board: Board) -> tuple[int, int]:
    """Channels of a block, blocks of a word."""
    array = board.sizes[ENGINE]
    return array["outputs"], array["inputs"] // array["outputs"]


@dataclass(frozen=True, eq=False)
class Packed:
    """A layer for one board: `source` and `result` are how its input and its result lie there."""

    layer: Quantised
    board: Board
    source: Form
    result: Form

    @cached_property
    def cut(self) -> Launches:
        return launches(self.layer.layer, self.board, self.source)

    def geometry(self, n: int, h: int, w: int) -> Geometry:
        """Of each launch, with its tiles. Raises ValueError where the inputs of one pixel do not fit the chip."""
        layer, cut = self.layer.layer, self.cut
        blocks_of_word = _array(self.board)[1]
        r, s = layer.weight.shape[2:]
        moves = (*layer.stride, *layer.padding, *layer.dilation)
        totals = {"C_total": self.source.blocks // blocks_of_word, "K_total": self.result.blocks}
        return _planned(self.board.name, Geometry(n, h, w, cut.words, cut.out_blocks, r, s, *moves, **totals))

    def estimate(self, n: int, h: int, w: int) -> Estimate:
        """Of each launch: modelled."""
        return conv_int8(self.board, self.geometry(n, h, w), self.layer.raw)

    def products(self, n: int, h: int, w: int) -> int:
        """Multiplications of the layer itself, nothing padded."""
        _, k, p, q = self.layer.sizes(n, h, w)
        return n * k * p * q * self.layer.weight[0].numel()

    @cached_property
    def weights(self) -> np.ndarray:
        """(launches, K blocks, C words, R, S, outputs, inputs), int8."""
        weight, cut = self.layer.weight, self.cut
        outputs, blocks_of_word = _array(self.board)
        inputs = outputs * blocks_of_word
        k, c, r, s = weight.shape
        features, groups = k // self.layer.layer.groups, self.layer.layer.groups
        spread = torch.zeros(cut.number, cut.out_blocks * outputs, cut.words * inputs, r, s, dtype=torch.int8)
        if groups == 1:
            spread[0, :k, self.source.places] = weight
        for group in range(groups if groups > 1 else 0):
            launch, slot = divmod(group, cut.merged)
            rows, columns = slice(slot * features, (slot + 1) * features), slice(slot * c, (slot + 1) * c)
            spread[launch, rows, columns] = weight[group * features : (group + 1) * features]
        tiles = spread.view(cut.number, cut.out_blocks, outputs, cut.words, inputs, r, s)
        return tiles.permute(0, 1, 3, 5, 6, 2, 4).contiguous().numpy()

    @cached_property
    def constants(self) -> np.ndarray:
        """(launches, K blocks, 3, outputs), int32: bias, multiplier, shift; zeros for channels that only pad."""
        cut, layer = self.cut, self.layer
        outputs = _array(self.board)[0]
        spread = torch.zeros(3, cut.number * cut.out_blocks * outputs, dtype=torch.int32)
        spread[:, self.result.places] = torch.stack([layer.bias, layer.multiplier, layer.shift])
        return spread.view(3, cut.number, cut.out_blocks, outputs).permute(1, 2, 0, 3).contiguous().numpy()


@lru_cache(maxsize=4096)
def _planned(board: str, g: Geometry) -> Geometry:
    """Plans are searched for, and the same for every batch of a size."""
    return planned(ENGINE, boards.board(board), g)


def unsupported(layer: Layer, board: Board, h: int, w: int) -> list[str]:
    """Why the board's engine cannot compute `layer` on images of h x w; empty where it can."""
    if layer.reasons:
        return list(layer.reasons)
    reasons = [reason for reason in (too_long(layer),) if reason]
    cut, source = launches(layer, board), read_form(layer, board)
    geometry = Geometry(1, h, w, cut.words, cut.out_blocks, *layer.weight.shape[2:], *layer.stride, *layer.padding, *layer.dilation)  # fmt: skip
    if geometry.P < 1 or geometry.Q < 1:
        reasons.append(f"images of {h}x{w} are smaller than its kernel")
        return reasons
    try:
        _planned(board.name, geometry)
    except ValueError as error:
        reasons.append(str(error))
    if source.blocks * h * w > board.ddr.bytes:
        reasons.append(f"an image of {h}x{w} does not fit the board's memory")
    return reasons


def packed_image(image: Tensor, form: Form, board: Board) -> np.ndarray:
    """(N, C, H, W) as (N, blocks, H, W, outputs), zeros where no channel lies."""
    outputs = _array(board)[0]
    n, _, h, w = image.shape
    spread = torch.zeros(n, form.blocks * outputs, h, w, dtype=image.dtype)
    spread[:, form.places] = image
    return spread.view(n, form.blocks, outputs, h, w).permute(0, 1, 3, 4, 2).contiguous().numpy()


def unpacked_image(packed: np.ndarray, form: Form) -> Tensor:
    """The reverse of packed_image, of any dtype."""
    blocks = torch.from_numpy(packed)
    n, number, h, w, outputs = blocks.shape
    return blocks.permute(0, 1, 4, 2, 3).reshape(n, number * outputs, h, w)[:, form.places].contiguous()
