"""Convolution with stride 1 as matrix products of boxes of pixels, which descriptors load: the kernels of the family boxes.

Implicit GEMM as in gemm_kernels.py, but a tile's pixels are a box of an image: a tap's neighbours of them are the same box,
shifted, and the tensor memory accelerator loads it with one instruction, with zeros for what lies outside of the image (CUDA
C++ Programming Guide, "Tensor Memory Accelerator"; PTX ISA, cp.async.bulk.tensor): neither addresses nor masks are left.

Pixels are (N, D, H, W, C) as channels_last has them, the weight is seen as (taps, K, C): channels past the last are zeros in
both, and never the next tap's. Sums are fp32. Weights times pixels, not pixels times weights, where that fills the tensor
cores: Triton takes a box to registers first if it is the left factor, and straight from shared memory if it is the right one.
Bytes: each tensor once from memory; what taps and neighbouring boxes read again is meant to come from the cache.
Flops: 2 per product, of a box's pixels past the image's end too.
"""

import triton
import triton.language as tl

from .gemm_kernels import place
from .tiles import activate, product, through


@triton.jit
def convolve_boxes(
    source, weight, bias, saved, out, before, BLOCKS_D, BLOCKS_H, BLOCKS_W, BLOCKS_M, BLOCKS_N,
    TAPS_D: tl.constexpr, REACH_D: tl.constexpr, OFFSET_D: tl.constexpr,
    TAPS_H: tl.constexpr, REACH_H: tl.constexpr, OFFSET_H: tl.constexpr,
    TAPS_W: tl.constexpr, REACH_W: tl.constexpr, OFFSET_W: tl.constexpr,
    SOURCE_C: tl.constexpr, OUT_C: tl.constexpr, GATHER: tl.constexpr, FLAT: tl.constexpr, PRECISION: tl.constexpr,
    BIAS: tl.constexpr, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, SAVE: tl.constexpr,
    BOX_I: tl.constexpr, BOX_D: tl.constexpr, BOX_H: tl.constexpr, BOX_W: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """BOX_I images x BOX_D x BOX_H x BOX_W pixels by BLOCK_N channels, and then the next tile, until there is none. All
    tensors but the bias are descriptors. FLAT sums over taps and channels in one loop, which Triton joins with that over
    tiles, so that a tile's first loads meet the last products of the tile before; else channels are a loop within a tap."""
    BLOCK_M: tl.constexpr = BOX_I * BOX_D * BOX_H * BOX_W
    TAPS: tl.constexpr = TAPS_D * TAPS_H * TAPS_W
    STEPS: tl.constexpr = (SOURCE_C + BLOCK_K - 1) // BLOCK_K
    ROUNDS: tl.constexpr = 1 if FLAT else TAPS
    # An activation's slope passes through registers anyway, and in fp32's own precision no tensor core takes part.
    TURNED: tl.constexpr = BLOCK_N >= 64 and not SLOPE and (source.dtype != tl.float32 or PRECISION != "ieee")
    for tile in tl.range(tl.program_id(0), BLOCKS_M * BLOCKS_N, tl.num_programs(0), flatten=FLAT):
        block_m, block_n = place(tile, BLOCKS_M, BLOCKS_N)
        w, line = block_m % BLOCKS_W * BOX_W, block_m // BLOCKS_W
        h, plane = line % BLOCKS_H * BOX_H, line // BLOCKS_H
        d, image = plane % BLOCKS_D * BOX_D, plane // BLOCKS_D * BOX_I
        n = block_n * BLOCK_N
        sums = tl.zeros((BLOCK_N, BLOCK_M) if TURNED else (BLOCK_M, BLOCK_N), tl.float32)
        for round in range(ROUNDS):
            for step in range(TAPS * STEPS // ROUNDS):
                tap = step // STEPS if FLAT else round
                start = (step % STEPS if FLAT else step) * BLOCK_K
                d_tap = d + OFFSET_D + tap // (TAPS_H * TAPS_W) * REACH_D
                h_tap = h + OFFSET_H + tap // TAPS_W % TAPS_H * REACH_H
                w_tap = w + OFFSET_W + tap % TAPS_W * REACH_W
                left = tl.reshape(source.load([image, d_tap, h_tap, w_tap, start]), (BLOCK_M, BLOCK_K))
                if SLOPE:
                    value = tl.reshape(saved.load([image, d_tap, h_tap, w_tap, start]), (BLOCK_M, BLOCK_K))
                    left = through(left.to(tl.float32), value.to(tl.float32), ACTIVATION).to(left.dtype)
                if GATHER:
                    right = tl.trans(tl.reshape(weight.load([tap, n, start]), (BLOCK_N, BLOCK_K)))
                else:
                    right = tl.reshape(weight.load([tap, start, n]), (BLOCK_K, BLOCK_N))
                if TURNED:
                    sums = product(tl.trans(right), tl.trans(left), sums, PRECISION)
                else:
                    sums = product(left, right, sums, PRECISION)
        if TURNED:
            sums = tl.trans(sums)
        if BIAS:
            channels = n + tl.arange(0, BLOCK_N)
            sums += tl.load(bias + channels, mask=channels < OUT_C, other=0.0).to(tl.float32)[None, :]
        if SAVE:
            box = tl.reshape(sums.to(before.dtype), (BOX_I, BOX_D, BOX_H, BOX_W, BLOCK_N))
            before.store([image, d, h, w, n], box)
        if not SLOPE:
            sums = activate(sums, ACTIVATION)
        out.store([image, d, h, w, n], tl.reshape(sums.to(out.dtype), (BOX_I, BOX_D, BOX_H, BOX_W, BLOCK_N)))


@triton.jit
def correlate_boxes(
    image, result, saved, partial, bias_partial, SIZE_D, SIZE_H, SIZE_W, BLOCKS_D, BLOCKS_H, BLOCKS_W,
    BLOCKS_M, BLOCKS_N, BLOCKS_K, BLOCKS_EACH,
    TAPS_D: tl.constexpr, PADDING_D: tl.constexpr, DILATION_D: tl.constexpr,
    TAPS_H: tl.constexpr, PADDING_H: tl.constexpr, DILATION_H: tl.constexpr,
    TAPS_W: tl.constexpr, PADDING_W: tl.constexpr, DILATION_W: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, RAGGED: tl.constexpr, PRECISION: tl.constexpr, BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, SLOPE_ON_IMAGE: tl.constexpr,
    BOX_I: tl.constexpr, BOX_D: tl.constexpr, BOX_H: tl.constexpr, BOX_W: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """BLOCK_M of the K filters by BLOCK_N of the C channels, for one tap, over BLOCKS_EACH of the BLOCKS_K boxes of the
    result: what fits a split. RAGGED boxes end past the result, where its zeros would meet the image's infinities."""
    BLOCK_K: tl.constexpr = BOX_I * BOX_D * BOX_H * BOX_W
    TAPS: tl.constexpr = TAPS_D * TAPS_H * TAPS_W
    SLOPE_ON_RESULT: tl.constexpr = ACTIVATION != "none" and not SLOPE_ON_IMAGE
    index = tl.program_id(0)
    block_m, index = index % BLOCKS_M, index // BLOCKS_M
    block_n, index = index % BLOCKS_N, index // BLOCKS_N
    tap, split = index % TAPS, index // TAPS
    m, n = block_m * BLOCK_M, block_n * BLOCK_N
    d_tap = tap // (TAPS_H * TAPS_W) * DILATION_D - PADDING_D
    h_tap = tap // TAPS_W % TAPS_H * DILATION_H - PADDING_H
    w_tap = tap % TAPS_W * DILATION_W - PADDING_W
    pixel = tl.arange(0, BLOCK_K)

    # The left factor passes through registers in any case: the one of which something is to be computed first.
    sums = tl.zeros((BLOCK_M, BLOCK_N) if SLOPE_ON_RESULT else (BLOCK_N, BLOCK_M), tl.float32)
    of_bias = tl.zeros((BLOCK_M,), tl.float32)
    for block in range(split * BLOCKS_EACH, tl.minimum((split + 1) * BLOCKS_EACH, BLOCKS_K)):
        w, line = block % BLOCKS_W * BOX_W, block // BLOCKS_W
        h, plane = line % BLOCKS_H * BOX_H, line // BLOCKS_H
        d, i = plane % BLOCKS_D * BOX_D, plane // BLOCKS_D * BOX_I
        left = tl.reshape(result.load([i, d, h, w, m]), (BLOCK_K, BLOCK_M))
        right = tl.reshape(image.load([i, d + d_tap, h + h_tap, w + w_tap, n]), (BLOCK_K, BLOCK_N))
        if SLOPE_ON_RESULT:
            value = tl.reshape(saved.load([i, d, h, w, m]), (BLOCK_K, BLOCK_M))
            left = through(left.to(tl.float32), value.to(tl.float32), ACTIVATION).to(left.dtype)
        if BIAS and tap + block_n == 0:
            of_bias += tl.sum(left.to(tl.float32), 0)
        if SLOPE_ON_IMAGE:
            value = tl.reshape(saved.load([i, d + d_tap, h + h_tap, w + w_tap, n]), (BLOCK_K, BLOCK_N))
            right = through(right.to(tl.float32), value.to(tl.float32), ACTIVATION).to(right.dtype)
        if RAGGED:
            inside = (pixel % BOX_W < SIZE_W - w) & (pixel // BOX_W % BOX_H < SIZE_H - h)
            inside = inside & (pixel // (BOX_W * BOX_H) % BOX_D < SIZE_D - d)
            right = tl.where(inside[:, None], right, 0.0).to(right.dtype)
        if SLOPE_ON_RESULT:
            sums = product(tl.trans(left), right, sums, PRECISION)
        else:
            sums = product(tl.trans(right), left, sums, PRECISION)
    if not SLOPE_ON_RESULT:
        sums = tl.trans(sums)

    m += tl.arange(0, BLOCK_M)
    n += tl.arange(0, BLOCK_N)
    at = split.to(tl.int64) * (K * TAPS * C) + tap * C + (m * (TAPS * C))[:, None] + n[None, :]
    tl.store(partial + at, sums.to(partial.dtype.element_ty), mask=(m < K)[:, None] & (n < C)[None, :])
    if BIAS and tap + block_n == 0:
        tl.store(bias_partial + split * K + m, of_bias.to(bias_partial.dtype.element_ty), mask=m < K)
