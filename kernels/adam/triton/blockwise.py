"""Moments in 8 bits within the step: kernels/adam/blockwise.py has the map and its source.

Decoding looks an index up in the map, which the nearest cache holds. Encoding works the index out, with a logarithm and a
power, since a search would be eight look-ups that wait for each other: within a decade the numbers of the map are the
middles of equal parts, so the nearest is that of the part one is in; only where two decades meet, at 0 and at 1 is the
border elsewhere.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_blocks(moment, scale, i, inside, begin, length, numbers):
    """Elements `i` of a moment as fp32: [blocks, 256], all of the blocks from element `begin` on up to `length`."""
    block = begin // 256 + tl.arange(0, i.shape[0])
    codes = tl.load(moment + i, mask=inside)
    scales = tl.load(scale + block, mask=256 * block < length)
    return decode(codes, scales, numbers, inside)


@triton.jit
def store_blocks(moment, scale, i, inside, begin, length, values, SIGNED: tl.constexpr):
    block = begin // 256 + tl.arange(0, i.shape[0])
    codes, scales = encode(tl.where(inside, values, 0.0), SIGNED)
    tl.store(moment + i, codes, mask=inside)
    tl.store(scale + block, scales, mask=256 * block < length)


@triton.jit
def decode(codes, scales, numbers, inside):
    """`codes` are [blocks, 256] of uint8, `scales` one for each block."""
    return tl.load(numbers + codes.to(tl.int32), mask=inside, other=0.0) * scales[:, None]


@triton.jit
def encode(values, SIGNED: tl.constexpr):
    """uint8 codes and scales of [blocks, 256] fp32 values. What is not finite spreads over its block."""
    sizes = tl.abs(values)
    scales = tl.max(tl.where(sizes == sizes, sizes, float("inf")), 1)
    shares = sizes * tl.where(scales > 0, tl.div_rn(1.0, scales), 0.0)[:, None]
    rank = rank_of(shares, SIGNED)
    codes = 127 + tl.where(values < 0, -tl.minimum(rank, 127), rank) if SIGNED else rank
    return codes.to(tl.uint8), scales


@triton.jit
def rank_of(share, SIGNED: tl.constexpr):
    """The place of the number nearest to 0 <= share <= 1 among those that are not negative."""
    # Decade d, from FIRST up, is of 2^d equal parts, and parts are numbered so that those of decade d begin at 2^d.
    FIRST: tl.constexpr = 0 if SIGNED else 1
    LAST: tl.constexpr = FIRST + 6
    decade = tl.floor(tl.log2(tl.maximum(share, 1e-30)) * 0.30102999566398120) + (LAST + 1)
    decade = tl.minimum(tl.maximum(decade, FIRST), LAST)
    parts = (1 << decade.to(tl.int32)).to(tl.float32)
    place = (share * tl.exp2((LAST - decade) * 3.3219280948873623) + 0.8) * (parts / 0.9)
    # The last number of a decade is 0.09 parts / 0.9 below the next one's beginning and the first 0.45 / 0.9 above, so
    # their border is 0.2 of a part inside; that with 0 is where half of the first number is.
    ZERO: tl.constexpr = 7.0 / 36.0 if SIGNED else 5.0 / 36.0
    inside_by = tl.where(decade == FIRST, ZERO, 0.2)
    part = tl.floor(place) - (place - parts < inside_by).to(tl.float32)
    part = tl.minimum(tl.maximum(part, parts - 1), 2 * parts - 1)
    ONE: tl.constexpr = 1 - 0.225 / 64 if SIGNED else 1 - 0.225 / 128
    part = tl.where(share > ONE, 2.0 * 2**LAST, part)
    return part.to(tl.int32) - FIRST
