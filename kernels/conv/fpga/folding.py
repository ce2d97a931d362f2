"""Taps as channels: few channels leave most of a word of the array's inputs empty.

What the taps of a dimension see becomes channels, so that a launch makes the same products in fewer words: the 7 columns of
7x7 taps over 3 channels are 21 channels of 7x1 taps, the 3x3 taps of a depthwise convolution 9 channels of one. Such images
may take more time on their way to the board, which the choice counts. Taps that lie so far apart that not even one pixel's
inputs fit the chip are folded whatever it costs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import inf, prod

import torch
from torch import Tensor

from accelops.targets.fpga.boards import board
from accelops.targets.fpga.convolution import HOST_BYTES_PER_SECOND, Geometry, seconds_in_parts
from accelops.targets.fpga.model import ceil_div

from .correlation import Images, Moves, Pair, Weights

CHOICES: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (1, 0))  # dimensions: rows are 0


@lru_cache(maxsize=4096)
def choice(name: str, g: Geometry, channels: int) -> tuple[int, ...]:
    """The dimensions whose taps are best folded, for launches like `g`, of so many channels a group, on the board `name`."""
    inputs, taps = board(name).sizes["conv_fp32"]["inputs"], (g.R, g.S)

    def words(dims: tuple[int, ...]) -> int:
        return ceil_div(channels * prod(taps[d] for d in dims), inputs)

    def seconds(dims: tuple[int, ...]) -> float:
        folded = replace(g, C=words(dims))
        if 0 in dims:
            folded = replace(folded, R=1, H=g.P, stride_h=1, padding_h=0, dilation_h=1)
        if 1 in dims:
            folded = replace(folded, S=1, W=g.Q, stride_w=1, padding_w=0, dilation_w=1)
        moved = 4 * g.N * folded.C * inputs * folded.H * folded.W
        return seconds_in_parts(name, folded) + moved / HOST_BYTES_PER_SECOND

    def steps(dims: tuple[int, ...]) -> int:
        return words(dims) * prod(taps[d] for d in range(2) if d not in dims)

    fits = seconds_in_parts(name, g) < inf
    better = [dims for dims in CHOICES[1:] if steps(dims) < steps(()) or not fits]
    return min([(), *better], key=seconds) if better else ()


def folded(x: Images, w: Weights, moves: Moves, plane: Pair, dims: tuple[int, ...]) -> tuple[Images, Weights, Moves]:
    """The same correlation with the taps of `dims` as channels. What is made of the images is kept with them."""
    values = w.values
    key = (dims, moves, tuple(values.shape[3:]), plane)
    images = x.folded.get(key)
    tensor = x.tensor if images is None else images.tensor
    for d in dims:
        if images is None:
            tensor = _seen(tensor, d, plane[d], values.shape[3 + d], *moves.along(d))
        values = values.movedim(3 + d, 3).flatten(2, 3).unsqueeze(3 + d)
    x.folded[key] = images = images or Images(tensor)
    rest = (_kept(pair, dims, folded) for pair, folded in ((moves.stride, 1), (moves.padding, 0), (moves.dilation, 1)))
    return images, Weights(values, w.owner, (*w.part, "folded", dims)), Moves(*rest)


def _kept(pair: Pair, dims: tuple[int, ...], folded: int) -> Pair:
    rows, columns = (folded if d in dims else pair[d] for d in range(2))
    return rows, columns


def _seen(x: Tensor, d: int, outputs: int, taps: int, stride: int, padding: int, dilation: int) -> Tensor:
    """(N, groups, C * taps, ...): of each output what each tap sees."""
    span = (taps - 1) * dilation + 1
    behind = (outputs - 1) * stride + span - padding - x.shape[3 + d]
    around = (0, 0, padding, behind) if d == 0 else (padding, behind)
    windows = torch.nn.functional.pad(x, around).unfold(3 + d, span, stride)[..., ::dilation]
    return windows.movedim(-1, 3).flatten(2, 3)
