"""The three directions as correlations on a board (engine.py). Sides are (N, groups, channels, rows, columns)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from accelops.targets.fpga.gradients import Band, Sides, phases, weight_plan

from .correlation import Images, Moves, Pair, Weights
from .engine import Engine
from .problem import Problem


def forward(
    engine: Engine,
    problem: Problem,
    large: Tensor,
    weight: Tensor,
    out: Tensor,
    bias: Tensor | None = None,
    relu: bool = False,
) -> None:
    """The small side, into `out`."""
    if not large.numel() or not weight.numel():
        _fill(out, bias, relu)
        return
    seen, stride = _without_gaps(problem.side(large), problem)
    moves = Moves(stride, problem.padding, problem.dilation)
    weights, offset = Weights(problem.weight(weight), weight, ("forward",)), _by_group(problem, bias)
    for part, to in _at_once(engine, seen, problem.side(out)):
        with Images(part) as images:
            to.copy_(engine.correlate(images, weights, moves, problem.small, offset, relu))


def _without_gaps(large: Tensor, problem: Problem) -> tuple[Tensor, Pair]:
    """Only the rows and columns that a single tap meets, and the stride over these."""
    stride = list(problem.stride)
    for d in range(2):
        if problem.taps[d] == 1 and problem.padding[d] == 0:
            large = large[(..., slice(None, None, stride[d]), *(slice(None),) * (1 - d))]
            stride[d] = 1
    return large, (stride[0], stride[1])


def large_gradient(
    engine: Engine,
    problem: Problem,
    small: Tensor,
    weight: Tensor,
    out: Tensor,
    bias: Tensor | None = None,
    relu: bool = False,
) -> None:
    """The large side, into `out`, phase by phase."""
    if not small.numel() or not weight.numel():
        _fill(out, bias, relu)
        return
    moves = (problem.large, problem.taps, problem.stride, problem.padding, problem.dilation)
    down, across = (phases(*dimension) for dimension in zip(*moves, strict=True))
    if sum(p.count for p in down) < problem.large[0] or sum(p.count for p in across) < problem.large[1]:
        _fill(out, bias, relu)  # what no tap reaches
    transposed, offset = problem.weight(weight).transpose(1, 2), _by_group(problem, bias)
    for part, to in _at_once(engine, problem.side(small), problem.side(out)):
        with Images(part) as images:
            for rows, columns in product(down, across):
                taps = transposed[..., list(rows.taps), :][..., list(columns.taps)]
                weights = Weights(taps, weight, ("large gradient", rows.taps, columns.taps))
                step = Moves((1, 1), (rows.padding, columns.padding), (rows.dilation, columns.dilation))
                made = engine.correlate(images, weights, step, (rows.count, columns.count), offset, relu)
                to[..., rows.first :: problem.stride[0], columns.first :: problem.stride[1]] = made


def _by_group(problem: Problem, bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.view(problem.groups, -1)


def _fill(out: Tensor, bias: Tensor | None, relu: bool) -> None:
    """What a sum of nothing gives."""
    out.zero_()
    if bias is not None:
        out += (bias.relu() if relu else bias).view(-1, *(1,) * (out.dim() - 2))


def _at_once(engine: Engine, images: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The images, and what they become, in as many parts as the board's memory asks for."""
    most = engine.images_at_once(tuple(images.shape[1:]), tuple(out.shape[1:]))
    yield from zip(images.split(most), out.split(most), strict=True)


def weight_gradient(engine: Engine, problem: Problem, small: Tensor, large: Tensor, out: Tensor) -> None:
    """The weight's gradient, into `out`: partial sums are added in the order of the bands and their entries."""
    out.zero_()
    if not small.numel() or not large.numel() or not out.numel():
        return
    seen, stride = _seen(problem.side(large), problem)
    sides = Sides(problem.N, problem.C, problem.K, *problem.small, *problem.taps, *stride, *problem.dilation)
    plan, moves = weight_plan(engine.board.name, sides), Moves(problem.dilation, (0, 0), stride)
    by_channel = problem.weight(out).permute(2, 0, 1, 3, 4)
    for band in plan.bands:
        entries = _bands_of_large(seen, band, sides), _bands_of_small(problem.side(small), band)
        for x, w in zip(*(whole.split(plan.entries, 2) for whole in entries), strict=True):
            for part, to in _at_once(engine, x, by_channel):
                with Images(part) as images:
                    to += engine.correlate(images, Weights(w), moves, problem.taps)


def _seen(large: Tensor, problem: Problem) -> tuple[Tensor, Pair]:
    """The large side with its padding, as far as taps reach; where there is one, only what it meets; and the stride."""
    ends = [
        (p - 1) * s + (t - 1) * d + 1
        for p, s, t, d in zip(problem.small, problem.stride, problem.taps, problem.dilation, strict=True)
    ]
    (above, left), (down, across) = problem.padding, ends
    below, right = down - above - problem.large[0], across - left - problem.large[1]
    seen = torch.nn.functional.pad(large, (left, right, above, below))
    gaps = [s if t == 1 else 1 for s, t in zip(problem.stride, problem.taps, strict=True)]
    stride = (problem.stride[0] // gaps[0], problem.stride[1] // gaps[1])
    return seen[..., :: gaps[0], :: gaps[1]], stride


def _bands_of_large(seen: Tensor, band: Band, sides: Sides) -> Tensor:
    """(C, groups, entries, rows, columns): images are the channels, an entry is what a band of an image meets."""
    rows = (band.rows - 1) * sides.stride_h + (sides.R - 1) * sides.dilation_h + 1
    columns = (band.columns - 1) * sides.stride_w + (sides.S - 1) * sides.dilation_w + 1
    cut = seen[..., band.p * sides.stride_h :, band.q * sides.stride_w :]
    cut = cut.unfold(3, rows, band.rows * sides.stride_h)[:, :, :, : band.down]
    cut = cut.unfold(4, columns, band.columns * sides.stride_w)[:, :, :, :, : band.across]
    return cut.permute(2, 1, 0, 3, 4, 5, 6).flatten(2, 4)


def _bands_of_small(small: Tensor, band: Band) -> Tensor:
    """(groups, K, entries, rows, columns)."""
    cut = small[..., band.p :, band.q :].unfold(3, band.rows, band.rows)[:, :, :, : band.down]
    cut = cut.unfold(4, band.columns, band.columns)[:, :, :, :, : band.across]
    return cut.permute(1, 2, 0, 3, 4, 5, 6).flatten(2, 4)
