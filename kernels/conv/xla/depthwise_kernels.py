"""The Pallas kernels of the depthwise family: `slide` computes pixels (gather, scatter), `weigh` filters (wgrad).

Both begin with `bring_lines`: what it leaves in `lines` has the zeros of padding and spreading in their places, so that no
tap needs a mask. A step's copy is started in the step before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .activation import activated
from .tile import LANES, SUBLANES, Tile, up

REGISTERS = 32  # of 64 vector registers, for sums


def bring_lines(tile: Tile, source: Any, lines: Any, buffers: Any, arrivals: Any) -> None:
    """Fill `lines` for this step from `source`, which stays in HBM, through one of two `buffers`."""
    part, step, steps = pl.program_id(0), pl.program_id(1), pl.num_programs(1)
    slot = lax.rem(step, 2)

    def place(step: Any) -> tuple[Any, Any, Any]:
        """(image, first line that is needed, first line that is brought)."""
        image, tiles = tile.split(part * steps + step)
        needed = tiles * tile.advance + tile.first
        return image, needed, jnp.clip(needed, 0, tile.lines.source - tile.held)

    def copy(step: Any, slot: Any) -> Any:
        image, _, begin = place(step)
        there = source.at[image, pl.ds(begin, tile.held)]
        return pltpu.make_async_copy(there, buffers.at[slot], arrivals.at[slot])

    @pl.when(step == 0)
    def _() -> None:
        copy(step, slot).start()
        zeros = jnp.zeros(lines.shape[1:], lines.dtype)
        lax.fori_loop(0, tile.height, lambda j, _: lines.__setitem__(j, zeros), None)

    @pl.when(step + 1 < steps)
    def _() -> None:
        copy(step + 1, 1 - slot).start()

    copy(step, slot).wait()
    _, needed, begin = place(step)

    def spread(j: Any, _: None) -> None:
        inside = (needed + j >= 0) & (needed + j < tile.lines.source)
        line = buffers[slot, jnp.clip(needed + j - begin, 0, tile.held - 1)].astype(jnp.float32)
        lines[j, strided(tile.columns.before, tile.columns.source, tile.columns.spread)] = jnp.where(inside, line, 0.0)

    lax.fori_loop(0, tile.height, spread, None)


def strided(begin: Any, size: int, stride: int) -> Any:
    return pl.ds(begin, size) if stride == 1 else pl.ds(begin, size, stride)


def by_columns(tile: Tile, sums: int, body: Callable[[Any, int], None]) -> None:
    """body(first column, how many) over a line of results, as many at a time as `sums` accumulators have registers for."""
    of_lanes = up(tile.channels, LANES) // LANES
    size = SUBLANES * max(1, REGISTERS // (sums * of_lanes))
    whole, rest = divmod(tile.columns.out, size)
    if whole == 1:
        body(0, size)
    elif whole:
        lax.fori_loop(0, whole, lambda k, _: body(pl.multiple_of(k * size, size), size), None)
    if rest:
        body(whole * size, rest)


def slide(tile: Tile, activation: str, bias: bool, save: bool, source: Any, weight: Any, *refs: Any) -> None:
    """`rows` lines of out = activation(filter * source + bias); what is before the activation too, where `save` says so."""
    of_bias, refs = (refs[0], refs[1:]) if bias else (None, refs)
    out, *before, lines, buffers, arrivals = refs
    bring_lines(tile, source, lines, buffers, arrivals)
    across = tile.columns

    def line_of(phase: int, j: Any) -> None:
        def some(q: Any, n: int) -> None:
            total = jnp.zeros((n, tile.channels), jnp.float32)
            for r, at in tile.lines.taps_of(phase):
                for s in range(across.taps):
                    columns = strided(q * across.stride + s * across.dilation, n, across.stride)
                    pixels = lines[j * tile.lines.stride + at - tile.first, columns]
                    total += pixels * weight[pl.ds(r * across.taps + s, 1)]
            if of_bias is not None:
                total += of_bias[...]
            row = j * tile.lines.spread + phase
            out[0, row, pl.ds(q, n)] = activated(total, activation).astype(out.dtype)
            for value in before:
                value[0, row, pl.ds(q, n)] = total.astype(value.dtype)

        by_columns(tile, 1, some)

    for phase in range(tile.lines.spread):
        lax.fori_loop(0, tile.rows // tile.lines.spread, lambda j, _, phase=phase: line_of(phase, j), None)


def weigh(tile: Tile, image: Any, result: Any, filters: Any, lines: Any, buffers: Any, arrivals: Any) -> None:
    """Add what `rows` lines of an image's result make of each filter. A load of the result serves a line of taps."""
    bring_lines(tile, image, lines, buffers, arrivals)

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        filters[...] = jnp.zeros(filters.shape, filters.dtype)

    across = tile.columns
    _, tiles = tile.split(pl.program_id(0) * pl.num_programs(1) + pl.program_id(1))
    rows = jnp.minimum(tile.rows, tile.lines.out - tiles * tile.rows)

    def some(q: Any, n: int) -> None:
        for r, at in tile.lines.taps_of(0):

            def add(j: Any, sums: tuple[jax.Array, ...], at: int = at) -> tuple[jax.Array, ...]:
                gradient = result[0, j, pl.ds(q, n)].astype(jnp.float32)
                line = j * tile.lines.stride + at - tile.first
                columns = (
                    strided(q * across.stride + s * across.dilation, n, across.stride) for s in range(across.taps)
                )
                return tuple(t + gradient * lines[line, where] for t, where in zip(sums, columns, strict=True))

            none = jnp.zeros((n, tile.channels), jnp.float32)
            for s, total in enumerate(lax.fori_loop(0, rows, add, (none,) * across.taps)):
                filters[0, pl.ds(r * across.taps + s, 1)] += total.sum(0, keepdims=True)

    by_columns(tile, across.taps, some)
