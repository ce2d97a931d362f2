"""The depthwise family: every channel has one filter of its own, so there is no matrix product, and memory sets the pace.

Bytes: each tensor once from memory; what is loaded again is meant to come from the caches. Flops: 2 per tap and result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
import triton
from torch import Tensor

from accelops.targets import triton as gpu

from ..problem import Problem, problem, walk
from ..spec import ConvSpec
from . import directions
from .depthwise_kernels import slide, weigh
from .tiles import add_splits

# As many loads of a tile as the loop of `slide` has in flight, as far as it is unrolled for that.
MOST_LOADS = 16
# As many taps of a filter's line as a program of `weigh` sums at most, and as many sums as a thread has registers for.
MOST_COLUMNS = 16
MOST_SUMS = 128
# So many programs of `weigh` a multiprocessor are to share its work, where there is enough of it.
PROGRAMS_EACH = 4


@dataclass(frozen=True)
class Config:
    """`block_c` channels by `block_w` pixels are a tile, powers of two; a program has `rows` lines of results in gather and
    scatter, and in wgrad `rows` lines of its filters."""

    block_c: int
    block_w: int
    rows: int
    num_warps: int = 4


def unsupported(spec: ConvSpec) -> list[str]:
    reasons = []
    if not spec.depthwise:
        reasons.append(f"groups={spec.groups} of {spec.input[1]} channels: every channel must have a filter of its own")
    elif spec.out_channels != spec.groups:
        reasons.append(f"{spec.out_channels // spec.groups} filters per channel: only one")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """The first is the one to take unmeasured."""
    p = problem(spec)
    wgrad = p.kind == "wgrad"
    fitted = [_tile(p, size) for size in ((256, 512, 128) if wgrad else (256, 512))]
    if p.channels_last:
        fitted += [_tile(p, 256 if wgrad else 512, channels) for channels in (32, 128)]
    if wgrad:
        return list(dict.fromkeys(Config(c, w, _filter_lines(p, c * w)) for c, w in fitted))
    rows = (1,) if max(p.image[1], p.result[1]) == 1 else (4, 2, 8)
    made = [Config(*tile, rows[0]) for tile in fitted] + [Config(*fitted[0], r) for r in rows[1:]]
    return list(dict.fromkeys(made))


def _tile(p: Problem, size: int, channels: int = 64) -> tuple[int, int]:
    """About `size` elements, the longer side along memory: `channels` of them, or a whole line."""
    width = triton.next_power_of_2(max(1, (p.image if p.kind == "scatter" else p.result)[2]))
    most = triton.next_power_of_2(p.c)
    if p.channels_last:
        channels = min(channels, most)
        return channels, min(width, max(1, size // channels))
    width = min(width, size)
    return min(most, size // width), width


def _filter_lines(p: Problem, size: int) -> int:
    each = max(1, size // 128)  # elements of a tile that a thread of four warps has
    return max(1, min(p.taps[1], MOST_SUMS // (each * min(p.taps[2], MOST_COLUMNS))))


def run(
    config: Config, spec: ConvSpec, first: Tensor, second: Tensor, third: Tensor | None = None, save: bool = False
) -> Any:
    """See kernels/conv/native.py: run."""
    p = problem(spec)
    return directions.run(
        partial(_slide, config, spec, p), partial(_weigh, config, spec, p), spec, p, first, second, third, save
    )


def _slide(
    config: Config,
    spec: ConvSpec,
    p: Problem,
    source: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    saved: Tensor | None,
    out: Tensor,
    before: Tensor | None,
) -> None:
    sizes, source_sizes = (p.result, p.image) if p.kind == "gather" else (p.image, p.result)
    walks = dict(zip("DHW", (walk(p, i) for i in range(3)), strict=True))
    high = walks["H"]
    reach = (high.count - 1) * high.reach
    lines = (config.rows - 1) * high.source + abs(reach) + 1
    blocks = [-(-size // w.phases) for size, w in zip(sizes, walks.values(), strict=True)]
    blocks = [-(-p.c // config.block_c), blocks[0], -(-blocks[1] // config.rows), -(-blocks[2] // config.block_w)]
    phases = walks["D"].phases * high.phases * walks["W"].phases
    names = ("taps", "phases", "source", "count", "step", "reach", "offset", "dilation")
    gpu.launch(
        slide,
        (p.n * prod(blocks) * phases,),
        source, weight, bias, saved, out, before, p.c, *source_sizes, *sizes, *blocks,
        **{f"{name.upper()}_{axis}": getattr(w, name) for axis, w in walks.items() for name in names},
        PARTIAL_H=high.partial,
        CHANNELS_LAST=p.channels_last,
        WIDE=p.wide,
        BIAS=bias is not None,
        ACTIVATION=spec.activation,
        SLOPE=saved is not None,
        SAVE=before is not None,
        FIRST_LINE=min(0, reach),
        LINES=lines,
        BLOCK_C=config.block_c,
        BLOCK_W=config.block_w,
        ROWS=config.rows,
        UNROLL=max(1, min(walks["W"].count, MOST_LOADS // lines)),
        num_warps=config.num_warps,
    )  # fmt: skip


def _weigh(
    config: Config,
    spec: ConvSpec,
    p: Problem,
    image: Tensor,
    result: Tensor,
    saved: Tensor | None,
    grad_weight: Tensor,
    grad_bias: Tensor | None,
) -> None:
    columns = min(p.taps[2], MOST_COLUMNS)
    depth = -(-((config.rows - 1) * p.dilation[1] + 1) // p.stride[1])
    blocks_c, blocks_w = -(-p.c // config.block_c), -(-p.result[2] // config.block_w)
    of_filters = blocks_c * p.taps[0] * -(-p.taps[1] // config.rows) * -(-p.taps[2] // columns)
    planes = p.n * p.result[0] * blocks_w
    wanted = max(1, PROGRAMS_EACH * gpu.architecture().multiprocessors // of_filters)
    lines = -(-p.result[1] // max(1, min(wanted // planes, p.result[1] // (2 * depth))))
    blocks_h = -(-p.result[1] // lines)
    each = -(-planes * blocks_h // wanted)
    splits = -(-planes * blocks_h // each)
    sums = torch.empty(splits, grad_weight.numel(), dtype=torch.float32, device=image.device)
    bias_sums = None if grad_bias is None else torch.empty(splits, p.c, dtype=torch.float32, device=image.device)
    axes = zip("DHW", range(3), strict=True)
    names = ("taps", "stride", "padding", "dilation")
    gpu.launch(
        weigh,
        (splits * of_filters,),
        image, result, saved, sums, bias_sums, p.c, *p.image, *p.result,
        blocks_c, blocks_h, blocks_w, lines, planes * blocks_h, each,
        **{f"{name.upper()}_{axis}": getattr(p, name)[i] for axis, i in axes for name in names},
        CHANNELS_LAST=p.channels_last,
        WIDE=p.wide,
        BIAS=grad_bias is not None,
        ACTIVATION=spec.activation,
        SLOPE_ON_IMAGE=p.transposed,
        BLOCK_C=config.block_c,
        BLOCK_W=config.block_w,
        ROWS=config.rows,
        COLUMNS=columns,
        DEPTH=depth,
        num_warps=config.num_warps,
    )  # fmt: skip
    add_splits(sums, grad_weight)
    if grad_bias is not None:
        add_splits(bias_sums, grad_bias)
