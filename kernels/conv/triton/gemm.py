"""Runs the kernels of gemm_kernels.py and gemm_flat_kernels.py on a Problem: what the families that are matrix products have
in common.

Everything is deterministic, whether torch.use_deterministic_algorithms asks for it or not: a weight gradient that is split
over programs is summed from their partial sums in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import torch
import triton
from torch import Tensor

from accelops.targets import triton as gpu

from ...spec import ITEMSIZE
from ..problem import Problem, walk
from ..spec import ConvSpec
from . import directions
from .gemm_flat_kernels import convolve_flat, correlate_flat
from .gemm_kernels import convolve, correlate
from .tiles import add_splits

# Offsets into the weight, and the numbers of pixels, are 32 bits wide.
MOST = (1 << 31) - (1 << 24)

# A program of wgrad sums at least so many tiles of pixels before another split is worth its partial sums.
LEAST_BLOCKS = 4


@dataclass(frozen=True)
class Tile:
    """`block_m` by `block_n` results of a matrix product, summed in steps of `block_k`: gemm_kernels says what of. With
    `line` a tile's pixels are of one line of an image, so that their neighbourhood in memory is known; else of all."""

    block_m: int
    block_n: int
    block_k: int
    line: bool = False
    num_warps: int = 4
    num_stages: int = 3


@dataclass(frozen=True)
class Flat(Tile):
    """Taps and channels are one dimension; `together` groups are computed side by side. Pixels are of all lines."""

    together: int = 1


def unsupported(spec: ConvSpec, p: Problem) -> list[str]:
    reasons = []
    if max(prod(spec.weight), p.n * prod(p.image), p.n * prod(p.result)) >= MOST:
        reasons.append("2^31 weights, or pixels, or more")
    return reasons


def slope(spec: ConvSpec) -> bool:
    """Whether an activation's slope meets a gradient that is read."""
    return spec.activation != "none" and spec.direction != "fprop"


def fitted(tiles: Iterable[Tile], spec: ConvSpec, p: Problem) -> list[Any]:
    """`tiles`, given for 16-bit operands, no larger than the product of `p`, with as many stages as a multiprocessor's memory
    holds. First the largest that leaves no multiprocessor without work, or else the one of the most programs."""
    chip = gpu.architecture()
    busy: dict[Tile, int] = {}
    for tile in tiles:
        rows, columns, summed = _sizes(p, isinstance(tile, Flat))
        groups = getattr(tile, "together", 1)
        block_k = max(16, tile.block_k * 2 // ITEMSIZE[spec.dtype])
        shape = zip((tile.block_m, tile.block_n, block_k), (rows, columns, summed), strict=True)
        m, n, k = (min(block, max(16, triton.next_power_of_2(size))) for block, size in shape)
        stage = groups * (m + n + (max(m, n) if slope(spec) else 0)) * k * ITEMSIZE[spec.dtype]
        most = 2 if chip.warp == 64 else tile.num_stages
        stages = max(1, min(most, chip.shared_memory // stage))
        warps = max(1, min(tile.num_warps, groups * max(m * n, m * k, n * k) // 512))
        fit = replace(tile, block_m=m, block_n=n, block_k=k, num_warps=warps, num_stages=stages)
        programs = -(-rows // m) * -(-columns // n) * -(-p.groups // groups)
        busy[fit] = chip.multiprocessors if p.kind == "wgrad" else min(programs, chip.multiprocessors)
    return sorted(busy, key=lambda tile: -busy[tile])


def along_lines(tiles: Iterable[Any], p: Problem) -> list[Any]:
    """`tiles`, their pixels now along lines, where they then waste less than a quarter of themselves."""
    if p.kind == "scatter":
        width, side = -(-p.image[2] // p.stride[2]), "block_m"
    else:
        width, side = p.result[2], "block_m" if p.kind == "gather" else "block_k"
    blocks = [(tile, getattr(tile, side)) for tile in tiles]
    return [replace(tile, line=True) for tile, block in blocks if 4 * width >= 3 * -(-width // block) * block]


def _sizes(p: Problem, flat: bool) -> tuple[int, int, int]:
    """Rows, columns and summed terms (of one tap, unless `flat`) of a group's matrix product."""
    c, k, taps = p.c // p.groups, p.k // p.groups, prod(p.taps) if flat else 1
    if p.kind == "wgrad":
        return k, c * taps, p.n * prod(p.result)
    if p.kind == "gather":
        return p.n * prod(p.result), k, c * taps
    return p.n * prod(p.image), c, k * (prod(walk(p, i).count for i in range(3)) if flat else 1)


def precision(spec: ConvSpec) -> str:
    """What fp32 operands are multiplied in, as torch would now: on NVIDIA its setting for cuDNN's convolutions says so,
    elsewhere it is IEEE's. Other operands are exact in either."""
    if spec.dtype != "float32" or not gpu.architecture().name.startswith("sm_"):
        return "ieee"
    conv = getattr(torch.backends.cudnn, "conv", None)  # before torch 2.9 there is one setting for all of cuDNN
    tf32 = torch.backends.cudnn.allow_tf32 if conv is None else conv.fp32_precision == "tf32"
    return "tf32" if tf32 else "ieee"


def run(
    tile: Tile,
    spec: ConvSpec,
    p: Problem,
    first: Tensor,
    second: Tensor,
    third: Tensor | None = None,
    save: bool = False,
) -> Any:
    """See kernels/conv/native.py: run. `p` is the Problem of `spec`, or one that is the same in memory."""
    return directions.run(
        partial(_convolve, tile, spec, p), partial(_correlate, tile, spec, p), spec, p, first, second, third, save
    )


def _convolve(
    tile: Tile,
    spec: ConvSpec,
    p: Problem,
    source: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    saved: Tensor | None,
    out: Tensor,
    before: Tensor | None,
) -> None:
    c, k, taps = p.c // p.groups, p.k // p.groups, prod(p.taps)
    of_c, of_k = 1 if p.channels_last else taps, c * taps
    gather = p.kind == "gather"
    source_sizes, sizes = (p.image, p.result) if gather else (p.result, p.image)
    channels = (c, k, of_c, of_k) if gather else (k, c, of_k, of_c)
    walks = dict(zip("DHW", (walk(p, i) for i in range(3)), strict=True))
    each = [-(-size // w.phases) for size, w in zip(sizes, walks.values(), strict=True)]
    blocks_m, blocks_n = _blocks_of_pixels(tile.line, tile.block_m, p.n, each), -(-channels[1] // tile.block_n)
    kernel, groups, own = convolve, p.groups, {"LINE": tile.line}
    if isinstance(tile, Flat):
        kernel, groups, own = convolve_flat, -(-p.groups // tile.together), {"TOGETHER": tile.together}
        own |= {f"COUNT_{axis}": w.count for axis, w in walks.items()}
    names = ("taps", "phases", "source", "step", "reach", "offset", "dilation")
    gpu.launch(
        kernel,
        (blocks_m * blocks_n * prod(w.phases for w in walks.values()) * groups,),
        source, weight, bias, saved, out, before, p.n, *source_sizes, *sizes, *each, blocks_m, blocks_n,
        **{f"{name.upper()}_{axis}": getattr(w, name) for axis, w in walks.items() for name in names},
        **own,
        GROUPS=p.groups,
        **dict(zip(("SOURCE_C", "OUT_C", "WEIGHT_SOURCE", "WEIGHT_OUT"), channels, strict=True)),
        WEIGHT_TAP=c if p.channels_last else 1,
        CHANNELS_LAST=p.channels_last,
        WIDE=p.wide,
        PRECISION=precision(spec),
        BIAS=bias is not None,
        ACTIVATION=spec.activation,
        SLOPE=saved is not None,
        SAVE=before is not None,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )  # fmt: skip


def _blocks_of_pixels(line: bool, block: int, n: int, sizes: Any) -> int:
    lines = n * sizes[0] * sizes[1]
    return lines * -(-sizes[2] // block) if line else -(-lines * sizes[2] // block)


def _correlate(
    tile: Tile,
    spec: ConvSpec,
    p: Problem,
    image: Tensor,
    result: Tensor,
    saved: Tensor | None,
    grad_weight: Tensor,
    grad_bias: Tensor | None,
) -> None:
    c, k, taps = p.c // p.groups, p.k // p.groups, prod(p.taps)
    rows, columns, _ = _sizes(p, isinstance(tile, Flat))
    blocks_m, blocks_n = -(-rows // tile.block_m), -(-columns // tile.block_n)
    if isinstance(tile, Flat):
        kernel, own = correlate_flat, {"TOGETHER": tile.together}
        tiles = blocks_m * blocks_n * -(-p.groups // tile.together)
    else:
        kernel, own = correlate, {"LINE": tile.line, "WEIGHT_C": 1 if p.channels_last else taps}
        own["WEIGHT_TAP"] = c if p.channels_last else 1
        tiles = blocks_m * blocks_n * p.groups * taps
    blocks_k = _blocks_of_pixels(tile.line, tile.block_k, p.n, p.result)
    splits, each = split(blocks_k, tiles)
    sums, bias_sums = (partial_sums(splits, out) for out in (grad_weight, grad_bias))
    names = ("taps", "stride", "padding", "dilation")
    gpu.launch(
        kernel,
        (tiles * splits,),
        image, result, saved, sums, bias_sums, p.n, *p.image, *p.result, blocks_m, blocks_n, blocks_k, each,
        **{f"{name.upper()}_{axis}": getattr(p, name)[i] for i, axis in enumerate("DHW") for name in names},
        GROUPS=p.groups,
        C=c,
        K=k,
        **own,
        CHANNELS_LAST=p.channels_last,
        WIDE=p.wide,
        PRECISION=precision(spec),
        BIAS=grad_bias is not None,
        ACTIVATION=spec.activation,
        SLOPE_ON_IMAGE=p.transposed,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )  # fmt: skip
    add_partial(sums, grad_weight)
    add_partial(bias_sums, grad_bias)


def split(blocks: int, tiles: int) -> tuple[int, int]:
    """Into how many splits each of `tiles` sums over `blocks` goes, and how many blocks each of them has."""
    splits = max(1, min(blocks // LEAST_BLOCKS, 2 * gpu.architecture().multiprocessors // tiles))
    each = -(-blocks // splits)
    return -(-blocks // each), each


def partial_sums(splits: int, out: Tensor | None) -> Tensor | None:
    """Where the splits' sums for `out` go: one split's are the result."""
    if out is None or splits == 1:
        return out
    return torch.empty(splits, out.numel(), dtype=torch.float32, device=out.device)


def add_partial(sums: Tensor | None, out: Tensor | None) -> None:
    """Write into `out` what partial_sums gave the kernel in its place."""
    if sums is not None and sums is not out:
        add_splits(sums, out)
