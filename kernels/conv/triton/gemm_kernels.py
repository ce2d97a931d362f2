"""Convolution as matrix products, without the matrix of patches in memory: the kernels of the families dense and pointwise.

Implicit GEMM (Chetlur et al. 2014, "cuDNN: efficient primitives for deep learning", section 3.1), in the letters of a GEMM:

                          M                       N               K, summed
    convolve  gather      pixels of the result    channels K      taps, channels C
              scatter     pixels of the image     channels C      taps, channels K
    correlate             channels K              channels C      pixels of the result, for one tap

Tiles lie as memory does, channels along their last axis in channels_last, pixels in contiguous, so that threads run along what
lies next to each other; in contiguous `convolve` multiplies weight by pixels, not pixels by weight. Sums are fp32. Taps and
channels are nested loops, not one flattened one, which Triton has compiled wrongly (pytorch/pytorch#177823).
Bytes: each operand once from memory; what neighbouring tiles read again is meant to come from the cache.
Flops: 2 per product.

Scalar conditions narrow a limit and never become part of a mask: Triton's interpreter loses the type of a scalar's truth.
"""

import triton
import triton.language as tl

from .tiles import activate, first_tap, product, through

# Tiles of so many rows are computed side by side, so that they find each other's operands in the cache.
ROWS_TOGETHER: tl.constexpr = tl.constexpr(8)


@triton.jit
def place(index, BLOCKS_M, BLOCKS_N):
    """(block_m, block_n) of the index-th tile: ROWS_TOGETHER rows of tiles, column by column, then the next rows."""
    first = index // (BLOCKS_N * ROWS_TOGETHER) * ROWS_TOGETHER
    rows = tl.minimum(BLOCKS_M - first, ROWS_TOGETHER)
    index = index % (BLOCKS_N * ROWS_TOGETHER)
    return first + index % rows, index // rows


@triton.jit
def pixels(block, SIZE_D, SIZE_H, SIZE_W, BLOCK: tl.constexpr, LINE: tl.constexpr, WIDE: tl.constexpr):
    """(image, d, h, w) of the pixels of a tile: of one line, whose end it may pass, if LINE; else of all lines of all
    images, whose end it may pass."""
    if LINE:
        blocks = tl.cdiv(SIZE_W, BLOCK)
        w = block % blocks * BLOCK + tl.arange(0, BLOCK)
        line = block // blocks
    else:
        index = block * BLOCK + tl.arange(0, BLOCK)
        w = index % SIZE_W
        line = index // SIZE_W
    image = line // (SIZE_D * SIZE_H)
    if WIDE:
        image = tl.cast(image, tl.int64)
    return image, line // SIZE_H % SIZE_D, line % SIZE_H, w


@triton.jit
def of_pixels(image, d, h, w, SIZE_D, SIZE_H, SIZE_W, C: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Offsets of pixels in a tensor of C channels."""
    if CHANNELS_LAST:
        at = (((image * SIZE_D + d) * SIZE_H + h) * SIZE_W + w) * C
    else:
        at = image * C * (SIZE_D * SIZE_H * SIZE_W) + (d * SIZE_H + h) * SIZE_W + w
    return at


@triton.jit
def of_channels(c, SIZE_D, SIZE_H, SIZE_W, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr):
    """Offsets of channels."""
    if not CHANNELS_LAST:
        if WIDE:
            c = tl.cast(c, tl.int64)
        c = c * (SIZE_D * SIZE_H * SIZE_W)
    return c


@triton.jit
def taps_of(first, TAPS: tl.constexpr, PHASES: tl.constexpr, STEP: tl.constexpr):
    """How many taps a phase has: first, first + STEP, ... below TAPS."""
    count = TAPS
    if PHASES > 1:
        count = (TAPS - first + STEP - 1) // STEP
    return count


@triton.jit
def spread(m, n, CHANNELS_LAST: tl.constexpr):
    """m and n as a tile's axes: n along its last in channels_last, m in contiguous."""
    if CHANNELS_LAST:
        m, n = m[:, None], n[None, :]
    else:
        m, n = m[None, :], n[:, None]
    return m, n


@triton.jit
def convolve(
    source, weight, bias, saved, out, before, N, SOURCE_SIZE_D, SOURCE_SIZE_H, SOURCE_SIZE_W, SIZE_D, SIZE_H, SIZE_W,
    EACH_D, EACH_H, EACH_W, BLOCKS_M, BLOCKS_N,
    TAPS_D: tl.constexpr, PHASES_D: tl.constexpr, SOURCE_D: tl.constexpr, STEP_D: tl.constexpr, REACH_D: tl.constexpr,
    OFFSET_D: tl.constexpr, DILATION_D: tl.constexpr,
    TAPS_H: tl.constexpr, PHASES_H: tl.constexpr, SOURCE_H: tl.constexpr, STEP_H: tl.constexpr, REACH_H: tl.constexpr,
    OFFSET_H: tl.constexpr, DILATION_H: tl.constexpr,
    TAPS_W: tl.constexpr, PHASES_W: tl.constexpr, SOURCE_W: tl.constexpr, STEP_W: tl.constexpr, REACH_W: tl.constexpr,
    OFFSET_W: tl.constexpr, DILATION_W: tl.constexpr,
    GROUPS: tl.constexpr, SOURCE_C: tl.constexpr, OUT_C: tl.constexpr, WEIGHT_SOURCE: tl.constexpr,
    WEIGHT_OUT: tl.constexpr, WEIGHT_TAP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, LINE: tl.constexpr, PRECISION: tl.constexpr, BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """BLOCK_M pixels of one phase of the destination, which has EACH_D x EACH_H x EACH_W in an image, by BLOCK_N channels
    of one group. SOURCE_C and OUT_C are the channels of a group, WEIGHT_... the strides of the weight."""
    index = tl.program_id(0)
    block_m, block_n = place(index % (BLOCKS_M * BLOCKS_N), BLOCKS_M, BLOCKS_N)
    index = index // (BLOCKS_M * BLOCKS_N)
    phase = index % (PHASES_D * PHASES_H * PHASES_W)
    group = index // (PHASES_D * PHASES_H * PHASES_W)
    phase_d, phase_h, phase_w = phase // (PHASES_H * PHASES_W), phase // PHASES_W % PHASES_H, phase % PHASES_W
    first_d = first_tap(phase_d, TAPS_D, PHASES_D, STEP_D, OFFSET_D, DILATION_D)
    first_h = first_tap(phase_h, TAPS_H, PHASES_H, STEP_H, OFFSET_H, DILATION_H)
    first_w = first_tap(phase_w, TAPS_W, PHASES_W, STEP_W, OFFSET_W, DILATION_W)

    image, d, h, w = pixels(block_m, EACH_D, EACH_H, EACH_W, BLOCK_M, LINE, WIDE)
    d_0 = (phase_d + OFFSET_D - first_d * DILATION_D) // PHASES_D + d * SOURCE_D
    h_0 = (phase_h + OFFSET_H - first_h * DILATION_H) // PHASES_H + h * SOURCE_H
    w_0 = (phase_w + OFFSET_W - first_w * DILATION_W) // PHASES_W + w * SOURCE_W
    of_m = of_pixels(
        image, d_0, h_0, w_0, SOURCE_SIZE_D, SOURCE_SIZE_H, SOURCE_SIZE_W, GROUPS * SOURCE_C, CHANNELS_LAST
    )
    n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    of_k = of_channels(group * SOURCE_C + k, SOURCE_SIZE_D, SOURCE_SIZE_H, SOURCE_SIZE_W, CHANNELS_LAST, WIDE)
    source_m, source_k = spread(of_m, of_k, CHANNELS_LAST)
    source_at = source_m + source_k
    of_start = of_channels(1, SOURCE_SIZE_D, SOURCE_SIZE_H, SOURCE_SIZE_W, CHANNELS_LAST, WIDE)
    pixel_stride: tl.constexpr = GROUPS * SOURCE_C if CHANNELS_LAST else 1
    weight_k, weight_n = spread(k * WEIGHT_SOURCE, n * WEIGHT_OUT, CHANNELS_LAST)
    weight_at = weight_k + weight_n
    weight += group * (SOURCE_C * OUT_C * TAPS_D * TAPS_H * TAPS_W)

    sums = tl.zeros((BLOCK_M, BLOCK_N) if CHANNELS_LAST else (BLOCK_N, BLOCK_M), tl.float32)
    for j_d in range(taps_of(first_d, TAPS_D, PHASES_D, STEP_D)):
        d_j = d_0 + j_d * REACH_D
        for j_h in range(taps_of(first_h, TAPS_H, PHASES_H, STEP_H)):
            h_j = h_0 + j_h * REACH_H
            in_line = (image < N) & (d_j >= 0) & (d_j < SOURCE_SIZE_D) & (h_j >= 0) & (h_j < SOURCE_SIZE_H)
            line_end = tl.where(in_line, SOURCE_SIZE_W, 0)
            for j_w in range(taps_of(first_w, TAPS_W, PHASES_W, STEP_W)):
                w_j = w_0 + j_w * REACH_W
                inside = (w_j >= 0) & (w_j < line_end)
                of_tap = (j_d * REACH_D * SOURCE_SIZE_H + j_h * REACH_H) * SOURCE_SIZE_W + j_w * REACH_W
                if WIDE:
                    of_tap = tl.cast(of_tap, tl.int64)
                tap = ((first_d + j_d * STEP_D) * TAPS_H + first_h + j_h * STEP_H) * TAPS_W + first_w + j_w * STEP_W
                for start in range(0, SOURCE_C, BLOCK_K):
                    there, _ = spread(inside, k, CHANNELS_LAST)
                    k_there, weight_there = spread(k < SOURCE_C - start, n < OUT_C, CHANNELS_LAST)
                    if SOURCE_C % BLOCK_K != 0:
                        _, of_source = spread(inside, k < SOURCE_C - start, CHANNELS_LAST)
                        there = there & of_source
                        weight_there = weight_there & k_there
                    at = source_at + (of_tap * pixel_stride + start * of_start)
                    left = tl.load(source + at, mask=there, other=0.0)
                    if SLOPE:
                        value = tl.load(saved + at, mask=there, other=0.0)
                        left = through(left.to(tl.float32), value.to(tl.float32), ACTIVATION).to(left.dtype)
                    at = weight_at + (tap * WEIGHT_TAP + start * WEIGHT_SOURCE)
                    right = tl.load(weight + at, mask=weight_there, other=0.0)
                    sums = (
                        product(left, right, sums, PRECISION)
                        if CHANNELS_LAST
                        else product(right, left, sums, PRECISION)
                    )

    d, h, w = phase_d + PHASES_D * d, phase_h + PHASES_H * h, phase_w + PHASES_W * w
    there = w < tl.where((image < N) & (d < SIZE_D) & (h < SIZE_H), SIZE_W, 0)
    m_there, n_there = spread(there, n < OUT_C, CHANNELS_LAST)
    inside = m_there & n_there
    n += group * OUT_C
    of_m = of_pixels(image, d, h, w, SIZE_D, SIZE_H, SIZE_W, GROUPS * OUT_C, CHANNELS_LAST)
    of_n = of_channels(n, SIZE_D, SIZE_H, SIZE_W, CHANNELS_LAST, WIDE)
    out_m, out_n = spread(of_m, of_n, CHANNELS_LAST)
    at = out_m + out_n
    if BIAS:
        added = tl.load(bias + n, mask=n < (group + 1) * OUT_C, other=0.0).to(tl.float32)
        _, added = spread(w, added, CHANNELS_LAST)
        sums += added
    if SAVE:
        tl.store(before + at, sums.to(before.dtype.element_ty), mask=inside)
    if not SLOPE:
        sums = activate(sums, ACTIVATION)
    tl.store(out + at, sums.to(out.dtype.element_ty), mask=inside)


@triton.jit
def correlate(
    image, result, saved, partial, bias_partial, N, IMAGE_D, IMAGE_H, IMAGE_W, RESULT_D, RESULT_H, RESULT_W,
    BLOCKS_M, BLOCKS_N, BLOCKS_K, BLOCKS_EACH,
    TAPS_D: tl.constexpr, STRIDE_D: tl.constexpr, PADDING_D: tl.constexpr, DILATION_D: tl.constexpr,
    TAPS_H: tl.constexpr, STRIDE_H: tl.constexpr, PADDING_H: tl.constexpr, DILATION_H: tl.constexpr,
    TAPS_W: tl.constexpr, STRIDE_W: tl.constexpr, PADDING_W: tl.constexpr, DILATION_W: tl.constexpr,
    GROUPS: tl.constexpr, C: tl.constexpr, K: tl.constexpr, WEIGHT_C: tl.constexpr, WEIGHT_TAP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, LINE: tl.constexpr, PRECISION: tl.constexpr, BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, SLOPE_ON_IMAGE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """BLOCK_M of a group's K filters by BLOCK_N of its C channels, for one tap, over BLOCKS_EACH of the BLOCKS_K tiles of
    pixels: what fits a split. Programs of one split run side by side, since they read the same pixels."""
    taps: tl.constexpr = TAPS_D * TAPS_H * TAPS_W
    index = tl.program_id(0)
    block_m = index % BLOCKS_M
    index = index // BLOCKS_M
    block_n = index % BLOCKS_N
    index = index // BLOCKS_N
    tap = index % taps
    index = index // taps
    group = index % GROUPS
    split = index // GROUPS
    tap_d, tap_h, tap_w = tap // (TAPS_H * TAPS_W), tap // TAPS_W % TAPS_H, tap % TAPS_W

    m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    of_m = of_channels(group * K + m, RESULT_D, RESULT_H, RESULT_W, CHANNELS_LAST, WIDE)
    of_n = of_channels(group * C + n, IMAGE_D, IMAGE_H, IMAGE_W, CHANNELS_LAST, WIDE)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    of_bias = tl.zeros((BLOCK_M,), tl.float32)
    begin = split * BLOCKS_EACH
    for block in range(begin, tl.minimum(begin + BLOCKS_EACH, BLOCKS_K)):
        i, d, h, w = pixels(block, RESULT_D, RESULT_H, RESULT_W, BLOCK_K, LINE, WIDE)
        there = w < tl.where(i < N, RESULT_W, 0)
        k_there, m_there = spread(there, m < K, CHANNELS_LAST)
        of_k = of_pixels(i, d, h, w, RESULT_D, RESULT_H, RESULT_W, GROUPS * K, CHANNELS_LAST)
        left_k, left_m = spread(of_k, of_m, CHANNELS_LAST)
        left = tl.load(result + left_k + left_m, mask=k_there & m_there, other=0.0)
        if ACTIVATION != "none" and not SLOPE_ON_IMAGE:
            value = tl.load(saved + left_k + left_m, mask=k_there & m_there, other=0.0)
            left = through(left.to(tl.float32), value.to(tl.float32), ACTIVATION).to(left.dtype)
        if BIAS and tap + block_n == 0:
            of_bias += tl.sum(left.to(tl.float32), 0 if CHANNELS_LAST else 1)

        d = d * STRIDE_D - PADDING_D + tap_d * DILATION_D
        h = h * STRIDE_H - PADDING_H + tap_h * DILATION_H
        w = w * STRIDE_W - PADDING_W + tap_w * DILATION_W
        in_line = (i < N) & (d >= 0) & (d < IMAGE_D) & (h >= 0) & (h < IMAGE_H)
        inside = there & (w >= 0) & (w < tl.where(in_line, IMAGE_W, 0))
        k_there, n_there = spread(inside, n < C, CHANNELS_LAST)
        of_k = of_pixels(i, d, h, w, IMAGE_D, IMAGE_H, IMAGE_W, GROUPS * C, CHANNELS_LAST)
        right_k, right_n = spread(of_k, of_n, CHANNELS_LAST)
        right = tl.load(image + right_k + right_n, mask=k_there & n_there, other=0.0)
        if ACTIVATION != "none" and SLOPE_ON_IMAGE:
            value = tl.load(saved + right_k + right_n, mask=k_there & n_there, other=0.0)
            right = through(right.to(tl.float32), value.to(tl.float32), ACTIVATION).to(right.dtype)
        if CHANNELS_LAST:
            sums = product(tl.trans(left), right, sums, PRECISION)
        else:
            sums = product(left, tl.trans(right), sums, PRECISION)

    at = (split.to(tl.int64) * GROUPS + group) * (K * C * taps) + tap * WEIGHT_TAP
    at += (m * (C * taps))[:, None] + (n * WEIGHT_C)[None, :]
    tl.store(partial + at, sums.to(partial.dtype.element_ty), mask=(m < K)[:, None] & (n < C)[None, :])
    if BIAS and tap + block_n == 0:
        bias_at = bias_partial + (split * GROUPS + group) * K + m
        tl.store(bias_at, of_bias.to(bias_partial.dtype.element_ty), mask=m < K)
