"""The depthwise family: every channel has one filter of its own, so there is no matrix product, and memory sets the pace.

Bytes: each tensor once from memory; what is loaded again is meant to come from the caches. Flops: 2 per tap and result.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import triton
from torch import Tensor

from accelops.targets import triton as gpu

from ..spec import ConvSpec
from ..tensors import empty
from .depthwise_kernels import slide, weigh
from .problem import Problem, problem, walk
from .tiles import sum_splits

# As many taps of a filter's line as a program of `weigh` sums in registers.
MOST_TAPS = 16


@dataclass(frozen=True)
class Config:
    """`block_c` channels by `block_w` pixels are a tile, powers of two; `rows` lines of results a program of gather and
    scatter (wgrad has none)."""

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
    if spec.transposed and spec.direction == "wgrad" and spec.bias:
        reasons.append("the bias gradient of a transposed convolution")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """The first is the one to take unmeasured."""
    p = problem(spec)
    width = triton.next_power_of_2(max(1, (p.result if p.kind != "scatter" else p.image)[2]))
    channels = triton.next_power_of_2(p.c)
    rows = (1,) if p.kind == "wgrad" or max(p.image[1], p.result[1]) == 1 else (4, 2, 8)
    if p.channels_last:
        tiles = [(64, 8), (32, 16), (128, 4)]
    elif width >= 256:
        tiles = [(1, 512), (1, 1024), (2, 256)]
    else:
        tiles = [(max(1, size // width), width) for size in (512, 1024, 256)]
    fitted = dict.fromkeys((min(c, channels), min(w, width)) for c, w in tiles)
    return [Config(c, w, r) for r in rows for c, w in fitted]


def run(
    config: Config, spec: ConvSpec, first: Tensor, second: Tensor, third: Tensor | None = None, save: bool = False
) -> Any:
    """See kernels/conv/native.py: run."""
    p = problem(spec)
    if spec.direction == "fprop":
        output = empty(spec, spec.output)
        saved = empty(spec, spec.output) if save else None
        _slide(config, spec, p, first, second, output, bias=third, before=saved)
        return output, saved
    if spec.direction == "dgrad":
        grad_input = empty(spec, spec.input)
        _slide(config, spec, p, first, second, grad_input, saved=third)
        return grad_input
    image, result = (first, second) if spec.transposed else (second, first)
    return _weigh(config, spec, p, image, result, third)


def _slide(
    config: Config,
    spec: ConvSpec,
    p: Problem,
    source: Tensor,
    weight: Tensor,
    out: Tensor,
    bias: Tensor | None = None,
    saved: Tensor | None = None,
    before: Tensor | None = None,
) -> None:
    if not out.numel():
        return
    sizes, source_sizes = (p.result, p.image) if p.kind == "gather" else (p.image, p.result)
    walks = dict(zip("DHW", (walk(p, i) for i in range(3)), strict=True))
    high = walks["H"]
    reach = (high.count - 1) * high.reach
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
        LINES=(config.rows - 1) * high.source + abs(reach) + 1,
        BLOCK_C=config.block_c,
        BLOCK_W=config.block_w,
        ROWS=config.rows,
        num_warps=config.num_warps,
    )  # fmt: skip


def _weigh(
    config: Config, spec: ConvSpec, p: Problem, image: Tensor, result: Tensor, saved: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    grad_weight = empty(spec, spec.weight)
    grad_bias = image.new_empty(spec.out_channels) if spec.bias else None
    if not image.numel() or not result.numel():
        return grad_weight.zero_(), None if grad_bias is None else grad_bias.zero_()
    chunk = min(p.taps[2], MOST_TAPS)
    of_filters = -(-p.c // config.block_c) * p.taps[0] * p.taps[1] * -(-p.taps[2] // chunk)
    lines = p.n * p.result[0] * p.result[1]
    splits = max(1, min(lines, 4 * gpu.architecture().multiprocessors // of_filters))
    each = -(-lines // splits)
    splits = -(-lines // each)
    partial = torch.empty(splits, grad_weight.numel(), dtype=torch.float32, device=image.device)
    bias_partial = torch.empty(splits, p.c, dtype=torch.float32, device=image.device) if spec.bias else None
    axes = zip("DHW", range(3), strict=True)
    names = ("taps", "stride", "padding", "dilation")
    gpu.launch(
        weigh,
        (splits * of_filters,),
        image, result, saved, partial, bias_partial, p.n, p.c, *p.image, *p.result,
        -(-p.c // config.block_c), splits, each,
        **{f"{name.upper()}_{axis}": getattr(p, name)[i] for axis, i in axes for name in names},
        CHANNELS_LAST=p.channels_last,
        WIDE=p.wide,
        BIAS=spec.bias,
        ACTIVATION=spec.activation,
        SLOPE_ON_IMAGE=p.transposed,
        CHUNK=chunk,
        BLOCK_C=config.block_c,
        BLOCK_W=config.block_w,
        num_warps=config.num_warps,
    )  # fmt: skip
    for sums, out in ((partial, grad_weight), (bias_partial, grad_bias)):
        if sums is not None:
            gpu.launch(
                sum_splits, (-(-sums.shape[1] // 256),), sums, out, sums.shape[1], splits, BLOCK=256, num_warps=4
            )
    return grad_weight, grad_bias
