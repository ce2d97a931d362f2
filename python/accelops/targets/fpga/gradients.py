"""Gradients of convolutions as convolutions that a board's engine makes: their geometries, and what they cost, *modelled*.

A convolution leads from a large side (H x W) to a small one (P x Q): row p meets row p * stride + r * dilation - padding
with tap r. Its gradient with respect to the large side is, for the rows of each residue of the stride (a phase: sub-pixel
convolution, Shi et al. 2016), a convolution of stride 1 over the small side with some of the taps, last first.

The gradient with respect to the weights is a convolution whose images are the channels of the large side, whose kernel is
the small side, whose stride is the dilation and whose dilation the stride; it sums over the images as others do over
channels. The small side is cut into bands that are summed over like further images: they fill the array's words where
there are few images, and the inputs of a tile fit the chip. What one launch cannot hold, several make.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from .boards import Board, board
from .convolution import LAUNCH_SECONDS, Geometry, conv_fp32, halvings, planned
from .model import Estimate, ceil_div


@dataclass(frozen=True)
class Phase:
    """Rows (or columns) `first`, `first` + stride, ... of the large side, `count` of them: a convolution of stride 1 over the
    small side with `taps` in this order. A negative padding leaves out the first rows of the small side."""

    first: int
    count: int
    taps: tuple[int, ...]
    padding: int
    dilation: int


def phases(large: int, taps: int, stride: int, padding: int, dilation: int) -> tuple[Phase, ...]:
    """Of one dimension; rows that no tap reaches, whose gradient is zero, are in none."""
    found = []
    for residue in range(stride):
        mine = [r for r in range(taps) if r * dilation % stride == residue]
        lowest = ceil_div(padding - residue, stride)  # row residue - padding + stride * u, from u = lowest on
        first = residue - padding + stride * lowest
        count = ceil_div(large - first, stride)
        if not mine or count <= 0:
            continue
        step = (mine[1] - mine[0]) * dilation // stride if len(mine) > 1 else 1
        reach = (len(mine) - 1) * step
        found.append(
            Phase(first, count, tuple(mine[::-1]), reach - (residue - mine[0] * dilation) // stride - lowest, step)
        )
    return tuple(found)


@dataclass(frozen=True)
class Sides:
    """What the weights' gradient depends on: images, channels of one group on the large (C) and the small side (K), the
    extents of the small side and of the taps."""

    N: int
    C: int
    K: int
    P: int
    Q: int
    R: int
    S: int
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1


@dataclass(frozen=True)
class Band:
    """`down` x `across` bands of `rows` x `columns` of the small side, the first of them at (p, q)."""

    p: int
    q: int
    rows: int
    columns: int
    down: int
    across: int


@dataclass(frozen=True)
class WeightPlan:
    """`bands` cover the small side, each for every image an entry of the sum; a launch takes at most `entries`."""

    bands: tuple[Band, ...]
    entries: int
    estimates: tuple[Estimate, ...]

    @property
    def seconds(self) -> float:
        return sum(estimate.seconds + LAUNCH_SECONDS for estimate in self.estimates)


@lru_cache(maxsize=4096)
def weight_plan(name: str, sides: Sides) -> WeightPlan:
    """The plan that is modelled to be fastest on the board `name`, for one group."""
    inputs, plans = board(name).sizes["conv_fp32"]["inputs"], []
    for rows, columns in product(halvings(sides.P), halvings(sides.Q)):
        bands = tuple(_cut(sides, rows, columns))
        for words in halvings(ceil_div(max(sides.N * band.down * band.across for band in bands), inputs)):
            try:
                plans.append(_costed(board(name), sides, bands, words * inputs))
            except ValueError:  # its inputs do not fit the chip
                continue
    return min(plans, key=lambda plan: plan.seconds)


def _cut(sides: Sides, rows: int, columns: int) -> Iterator[Band]:
    """Whole bands, and what is left below and beside them: a band that reached further would meet what other taps need."""
    for p, down, high in ((0, sides.P // rows, rows), (sides.P // rows * rows, 1, sides.P % rows)):
        for q, across, wide in ((0, sides.Q // columns, columns), (sides.Q // columns * columns, 1, sides.Q % columns)):
            if high and wide:
                yield Band(p, q, high, wide, down, across)


def _costed(board: Board, sides: Sides, bands: tuple[Band, ...], entries: int) -> WeightPlan:
    def estimate(band: Band, summed: int) -> Estimate:
        return conv_fp32(board, planned_weight_launch(board.name, sides, band, summed))

    estimates: list[Estimate] = []
    for band in bands:
        whole, rest = divmod(sides.N * band.down * band.across, entries)
        estimates += [estimate(band, entries)] * whole if whole else []
        estimates += [estimate(band, rest)] if rest else []
    return WeightPlan(bands, entries, tuple(estimates))


@lru_cache(maxsize=65536)
def planned_weight_launch(name: str, sides: Sides, band: Band, entries: int) -> Geometry:
    """One launch over `entries` bands of images, tiled. Raises ValueError where its inputs do not fit the chip."""
    array = board(name).sizes["conv_fp32"]
    return planned(
        "conv_fp32",
        board(name),
        Geometry(
            N=sides.C,
            H=(band.rows - 1) * sides.stride_h + (sides.R - 1) * sides.dilation_h + 1,
            W=(band.columns - 1) * sides.stride_w + (sides.S - 1) * sides.dilation_w + 1,
            C=ceil_div(entries, array["inputs"]),
            K=ceil_div(sides.K, array["outputs"]),
            R=band.rows,
            S=band.columns,
            stride_h=sides.dilation_h,
            stride_w=sides.dilation_w,
            dilation_h=sides.stride_h,
            dilation_w=sides.stride_w,
        ),
    )
