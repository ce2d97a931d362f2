"""Depthwise convolution on the vector unit, in Pallas: XLA gives the matrix unit one channel at a time.

Channels lie in the lanes, columns in the sublanes. A step of the grid computes `rows` lines of one image's result. It has
all lines that they need brought from HBM by a copy of its own, the halo among them, while the step before it computes; the
blocks of a BlockSpec could not overlap. The lines are then laid out in fp32 with zeros around them (and, in a scatter,
between them), so that a tap is a load at an offset, and one multiply-add: 2 flops per tap and result, every tensor once
from memory but for the halo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...spec import ITEMSIZE
from ..problem import Problem, problem
from ..spec import ConvSpec
from .depthwise_kernels import slide, weigh
from .mode import Mode
from .tile import Tile, axis, up

BUDGET = 10 * 2**20  # bytes: a program of a TPU v4 has 16 MiB of vector memory, of which the compiler wants some


@dataclass(frozen=True)
class Config:
    """`rows` lines of results a step."""

    rows: int


def unsupported(spec: ConvSpec) -> list[str]:
    reasons = []
    if not spec.depthwise:
        reasons.append(f"groups={spec.groups} of {spec.input[1]} channels: every channel must have a filter of its own")
    elif spec.out_channels != spec.groups:
        reasons.append(f"{spec.out_channels // spec.groups} filters per channel: only one")
    if spec.ndim > 2:
        reasons.append(f"{spec.ndim} spatial dimensions: at most two")
    if spec.dtype == "float16":
        reasons.append("dtype float16, which a TPU's vector unit does not have")
    if not (prod(spec.input) and prod(spec.output)):
        reasons.append("an empty tensor")
    if not reasons and axis(problem(spec), 2).before < 0:
        reasons.append(f"padding {spec.padding[-1]} beyond the kernel")
    if not reasons and not configs(spec):
        reasons.append(f"lines of {spec.input[-1]} pixels in {spec.groups} channels: too long for the vector memory")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """Whole images where they fit, else the most lines; then half of them, whose copies end earlier."""
    p = problem(spec)
    lines = axis(p, 1)
    rows = {
        up(-(-lines.out // parts), lines.spread): None for parts in (2**k for k in range(lines.out.bit_length() + 1))
    }
    results = 1 if p.kind == "wgrad" or spec.activation == "none" else 2
    fitting = [n for n in rows if _tile(p, n).bytes(ITEMSIZE[spec.dtype], results) <= BUDGET]
    return [Config(n) for n in fitting[:2]]


def _tile(p: Problem, rows: int) -> Tile:
    return Tile(axis(p, 1), axis(p, 2), p.n, p.c, rows)


def convolve(
    config: Config,
    spec: ConvSpec,
    p: Problem,
    source: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    save: bool,
    mode: Mode,
) -> tuple[jax.Array, jax.Array | None]:
    """See dense.convolve."""
    tile = _tile(p, config.rows)
    filters = weight.reshape(p.c, -1).T.astype(jnp.float32)  # one channel of one group: in either format (C, taps)
    if p.kind == "scatter":
        filters = filters[::-1]
    small = [filters] if bias is None else [filters, bias.astype(jnp.float32).reshape(1, -1)]
    out = jax.ShapeDtypeStruct((p.n, tile.lines.out, tile.columns.out, p.c), source.dtype)
    activation = spec.activation if p.forward else "none"
    results = _call(
        partial(slide, tile, activation, bias is not None, save),
        tile,
        source.dtype,
        mode,
        "depthwise_slide",
        in_specs=[pl.BlockSpec(memory_space=pl.ANY), *(pl.BlockSpec(x.shape, lambda *_: (0, 0)) for x in small)],
        out_specs=[_block(tile)] * (1 + save),
        out_shape=[out] * (1 + save),
    )(_lines(spec, source), *small)
    result, *before = (_unlined(spec, r) for r in results)
    return result, before[0] if save else None


def correlate(config: Config, spec: ConvSpec, p: Problem, image: jax.Array, result: jax.Array, mode: Mode) -> jax.Array:
    """See dense.correlate."""
    tile = _tile(p, config.rows)
    parts, taps = tile.grid[0], tile.lines.taps * tile.columns.taps
    (sums,) = _call(
        partial(weigh, tile),
        tile,
        image.dtype,
        mode,
        "depthwise_weigh",
        in_specs=[pl.BlockSpec(memory_space=pl.ANY), _block(tile)],
        out_specs=[pl.BlockSpec((1, taps, p.c), lambda part, _: (part, 0, 0))],
        out_shape=[jax.ShapeDtypeStruct((parts, taps, p.c), jnp.float32)],
    )(_lines(spec, image), _lines(spec, result))
    shape = (spec.weight[0], *spec.kernel, 1) if p.channels_last else spec.weight
    return sums.sum(0).T.reshape(shape).astype(image.dtype)


def _block(tile: Tile) -> pl.BlockSpec:
    """`rows` lines of an image's result."""

    def place(part: Any, step: Any) -> tuple[Any, ...]:
        return *tile.split(part * tile.grid[1] + step), 0, 0

    return pl.BlockSpec((1, tile.rows, tile.columns.out, tile.channels), place)


def _call(kernel: Any, tile: Tile, dtype: Any, mode: Mode, name: str, **shapes: Any) -> Callable[..., list[jax.Array]]:
    moved = (2, tile.held, tile.columns.source, tile.channels)
    return pl.pallas_call(
        kernel,
        grid=tile.grid,
        scratch_shapes=[
            pltpu.VMEM((tile.height, tile.width, tile.channels), jnp.float32),
            pltpu.VMEM(moved, dtype),
            pltpu.SemaphoreType.DMA((2,)),
        ],
        # The steps of a half follow each other: each starts the copy of the next.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=mode.interpret,
        name=name,
        **shapes,
    )


def _lines(spec: ConvSpec, x: jax.Array) -> jax.Array:
    """(N, H, W, C); H is 1 where there is one spatial dimension."""
    last = x if spec.memory_format == "channels_last" else jnp.moveaxis(x, 1, -1)
    return last if spec.ndim == 2 else last[:, None]


def _unlined(spec: ConvSpec, x: jax.Array) -> jax.Array:
    last = x if spec.ndim == 2 else x[:, 0]
    return last if spec.memory_format == "channels_last" else jnp.moveaxis(last, -1, 1)
