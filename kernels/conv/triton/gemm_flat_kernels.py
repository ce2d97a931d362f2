"""Convolution as matrix products whose summed terms are taps and channels together: the kernels of the families stem and
grouped, in whose groups a single tap has too few channels to fill a matrix product.

Implicit GEMM as in gemm_kernels.py, over terms t = (tap, channel) in channels_last and (channel, tap) in contiguous, which is
how the weight lies in memory; the matrix of patches is built tile by tile in registers. TOGETHER groups are computed side by
side as a batch of products, since they share pixels, and in channels_last cache lines; nothing that is not finite passes from
one group to another, as it would through the zeros of a block-diagonal matrix.

            batch                M                       N             K, summed
    convolve_flat     groups     pixels of destination   its channels  terms
    correlate_flat    groups     channels K              terms         pixels of the result

Bytes: each operand once from memory; what taps read again is meant to come from the cache.
Flops: 2 per product, and as many again as tiles pass the ends of few channels and terms.
"""

import triton
import triton.language as tl

from .gemm_kernels import of_channels, of_pixels, pixels, spread
from .tiles import activate, first_tap, product, through


@triton.jit
def batched(x, TOGETHER: tl.constexpr):
    """A tile of every group, where there are several."""
    if TOGETHER > 1:
        x = x[None, :, :]
    return x


@triton.jit
def turned(x, TOGETHER: tl.constexpr):
    """A tile with its last two axes exchanged."""
    x = tl.permute(x, (0, 2, 1)) if TOGETHER > 1 else tl.trans(x)
    return x


@triton.jit
def groups_of(block, TOGETHER: tl.constexpr):
    """The groups of a program, as the first axis of its tiles; just one is a scalar."""
    if TOGETHER > 1:
        block = (block * TOGETHER + tl.arange(0, TOGETHER))[:, None, None]
    return block


@triton.jit
def of_groups(mask, group, GROUPS: tl.constexpr, TOGETHER: tl.constexpr):
    """The mask of a tile for every group that there is."""
    if TOGETHER > 1:
        mask = mask[None, :, :] & (group < GROUPS)
    return mask


@triton.jit
def of_term(t, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, TAPS: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """(channel, tap's d, h, w) of a term, of C channels and TAPS taps in planes of H x W."""
    if CHANNELS_LAST:
        c, tap = t % C, t // C
    else:
        c, tap = t // TAPS, t % TAPS
    return c, tap // (H * W), tap // W % H, tap % W


@triton.jit
def inside(
    n, d, h, w, d_j, h_j, w_j, there, N, SIZE_D, SIZE_H, SIZE_W, COUNT_D: tl.constexpr, COUNT_H: tl.constexpr,
    COUNT_W: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Whether pixels (n, d, h, w) plus the offsets (d_j, h_j, w_j) of terms that are `there` lie in a source. Where a dimension
    has one tap, which has no offset, a pixel tells that for all terms."""
    pixel = n < N
    if COUNT_D == 1:
        pixel = pixel & (d >= 0) & (d < SIZE_D)
    if COUNT_H == 1:
        pixel = pixel & (h >= 0) & (h < SIZE_H)
    if COUNT_W == 1:
        pixel = pixel & (w >= 0) & (w < SIZE_W)
    m, t = spread(pixel, there, CHANNELS_LAST)
    both = m & t
    if COUNT_D > 1:
        m, t = spread(d, d_j, CHANNELS_LAST)
        both = both & (m + t >= 0) & (m + t < SIZE_D)
    if COUNT_H > 1:
        m, t = spread(h, h_j, CHANNELS_LAST)
        both = both & (m + t >= 0) & (m + t < SIZE_H)
    if COUNT_W > 1:
        m, t = spread(w, w_j, CHANNELS_LAST)
        both = both & (m + t >= 0) & (m + t < SIZE_W)
    return both


@triton.jit
def convolve_flat(
    source, weight, bias, saved, out, before, N, SOURCE_SIZE_D, SOURCE_SIZE_H, SOURCE_SIZE_W, SIZE_D, SIZE_H, SIZE_W,
    EACH_D, EACH_H, EACH_W, BLOCKS_M, BLOCKS_N,
    TAPS_D: tl.constexpr, PHASES_D: tl.constexpr, SOURCE_D: tl.constexpr, COUNT_D: tl.constexpr, STEP_D: tl.constexpr,
    REACH_D: tl.constexpr, OFFSET_D: tl.constexpr, DILATION_D: tl.constexpr,
    TAPS_H: tl.constexpr, PHASES_H: tl.constexpr, SOURCE_H: tl.constexpr, COUNT_H: tl.constexpr, STEP_H: tl.constexpr,
    REACH_H: tl.constexpr, OFFSET_H: tl.constexpr, DILATION_H: tl.constexpr,
    TAPS_W: tl.constexpr, PHASES_W: tl.constexpr, SOURCE_W: tl.constexpr, COUNT_W: tl.constexpr, STEP_W: tl.constexpr,
    REACH_W: tl.constexpr, OFFSET_W: tl.constexpr, DILATION_W: tl.constexpr,
    GROUPS: tl.constexpr, SOURCE_C: tl.constexpr, OUT_C: tl.constexpr, WEIGHT_SOURCE: tl.constexpr,
    WEIGHT_OUT: tl.constexpr, WEIGHT_TAP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, SAVE: tl.constexpr,
    TOGETHER: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """As gemm_kernels.convolve, for TOGETHER groups; a phase has at most COUNT_D x COUNT_H x COUNT_W taps."""
    blocks_g: tl.constexpr = (GROUPS + TOGETHER - 1) // TOGETHER
    index = tl.program_id(0)
    block_n = index % BLOCKS_N
    index = index // BLOCKS_N
    group = groups_of(index % blocks_g, TOGETHER)
    index = index // blocks_g
    block_m = index % BLOCKS_M
    phase = index // BLOCKS_M
    phase_d, phase_h, phase_w = phase // (PHASES_H * PHASES_W), phase // PHASES_W % PHASES_H, phase % PHASES_W
    first_d = first_tap(phase_d, TAPS_D, PHASES_D, STEP_D, OFFSET_D, DILATION_D)
    first_h = first_tap(phase_h, TAPS_H, PHASES_H, STEP_H, OFFSET_H, DILATION_H)
    first_w = first_tap(phase_w, TAPS_W, PHASES_W, STEP_W, OFFSET_W, DILATION_W)

    image, d, h, w = pixels(block_m, EACH_D, EACH_H, EACH_W, BLOCK_M, False, WIDE)
    d_0 = (phase_d + OFFSET_D - first_d * DILATION_D) // PHASES_D + d * SOURCE_D
    h_0 = (phase_h + OFFSET_H - first_h * DILATION_H) // PHASES_H + h * SOURCE_H
    w_0 = (phase_w + OFFSET_W - first_w * DILATION_W) // PHASES_W + w * SOURCE_W
    of_m = of_pixels(
        image, d_0, h_0, w_0, SOURCE_SIZE_D, SOURCE_SIZE_H, SOURCE_SIZE_W, GROUPS * SOURCE_C, CHANNELS_LAST
    )
    of_group = of_channels(group * SOURCE_C, SOURCE_SIZE_D, SOURCE_SIZE_H, SOURCE_SIZE_W, CHANNELS_LAST, WIDE)
    pixel_stride: tl.constexpr = GROUPS * SOURCE_C if CHANNELS_LAST else 1
    n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    of_filters = group * (SOURCE_C * OUT_C * TAPS_D * TAPS_H * TAPS_W)

    rows: tl.constexpr = BLOCK_M if CHANNELS_LAST else BLOCK_N
    columns: tl.constexpr = BLOCK_N if CHANNELS_LAST else BLOCK_M
    sums = tl.zeros((TOGETHER, rows, columns) if TOGETHER > 1 else (rows, columns), tl.float32)
    for start in range(0, COUNT_D * COUNT_H * COUNT_W * SOURCE_C, BLOCK_K):
        t = start + tl.arange(0, BLOCK_K)
        c, j_d, j_h, j_w = of_term(t, SOURCE_C, COUNT_H, COUNT_W, COUNT_D * COUNT_H * COUNT_W, CHANNELS_LAST)
        tap_d, tap_h, tap_w = first_d + j_d * STEP_D, first_h + j_h * STEP_H, first_w + j_w * STEP_W
        there = (t < COUNT_D * COUNT_H * COUNT_W * SOURCE_C) & (tap_d < TAPS_D) & (tap_h < TAPS_H) & (tap_w < TAPS_W)
        d_j, h_j, w_j = j_d * REACH_D, j_h * REACH_H, j_w * REACH_W
        of_t = of_channels(c, SOURCE_SIZE_D, SOURCE_SIZE_H, SOURCE_SIZE_W, CHANNELS_LAST, WIDE)
        of_t += ((d_j * SOURCE_SIZE_H + h_j) * SOURCE_SIZE_W + w_j) * pixel_stride
        m_at, t_at = spread(of_m, of_t, CHANNELS_LAST)
        at = batched(m_at + t_at, TOGETHER) + of_group
        mask = inside(
            image, d_0, h_0, w_0, d_j, h_j, w_j, there, N, SOURCE_SIZE_D, SOURCE_SIZE_H, SOURCE_SIZE_W, COUNT_D, COUNT_H,
            COUNT_W, CHANNELS_LAST,
        )  # fmt: skip
        mask = of_groups(mask, group, GROUPS, TOGETHER)
        left = tl.load(source + at, mask=mask, other=0.0)
        if SLOPE:
            value = tl.load(saved + at, mask=mask, other=0.0)
            left = through(left.to(tl.float32), value.to(tl.float32), ACTIVATION).to(left.dtype)
        tap = (tap_d * TAPS_H + tap_h) * TAPS_W + tap_w
        t_at, n_at = spread(c * WEIGHT_SOURCE + tap * WEIGHT_TAP, n * WEIGHT_OUT, CHANNELS_LAST)
        t_there, n_there = spread(there, n < OUT_C, CHANNELS_LAST)
        mask = of_groups(t_there & n_there, group, GROUPS, TOGETHER)
        right = tl.load(weight + (batched(t_at + n_at, TOGETHER) + of_filters), mask=mask, other=0.0)
        sums = product(left, right, sums, PRECISION) if CHANNELS_LAST else product(right, left, sums, PRECISION)

    d, h, w = phase_d + PHASES_D * d, phase_h + PHASES_H * h, phase_w + PHASES_W * w
    there = (image < N) & (d < SIZE_D) & (h < SIZE_H) & (w < SIZE_W)
    m_there, n_there = spread(there, n < OUT_C, CHANNELS_LAST)
    mask = of_groups(m_there & n_there, group, GROUPS, TOGETHER)
    of_m = of_pixels(image, d, h, w, SIZE_D, SIZE_H, SIZE_W, GROUPS * OUT_C, CHANNELS_LAST)
    of_n = of_channels(n, SIZE_D, SIZE_H, SIZE_W, CHANNELS_LAST, WIDE)
    m_at, n_at = spread(of_m, of_n, CHANNELS_LAST)
    at = batched(m_at + n_at, TOGETHER) + of_channels(group * OUT_C, SIZE_D, SIZE_H, SIZE_W, CHANNELS_LAST, WIDE)
    if BIAS:
        _, n = spread(w, n, CHANNELS_LAST)
        there = of_groups(n < OUT_C, group, GROUPS, TOGETHER)
        sums += tl.load(bias + (group * OUT_C + batched(n, TOGETHER)), mask=there, other=0.0).to(tl.float32)
    if SAVE:
        tl.store(before + at, sums.to(before.dtype.element_ty), mask=mask)
    if not SLOPE:
        sums = activate(sums, ACTIVATION)
    tl.store(out + at, sums.to(out.dtype.element_ty), mask=mask)


@triton.jit
def correlate_flat(
    image, result, saved, partial, bias_partial, N, IMAGE_D, IMAGE_H, IMAGE_W, RESULT_D, RESULT_H, RESULT_W,
    BLOCKS_M, BLOCKS_N, BLOCKS_K, BLOCKS_EACH,
    TAPS_D: tl.constexpr, STRIDE_D: tl.constexpr, PADDING_D: tl.constexpr, DILATION_D: tl.constexpr,
    TAPS_H: tl.constexpr, STRIDE_H: tl.constexpr, PADDING_H: tl.constexpr, DILATION_H: tl.constexpr,
    TAPS_W: tl.constexpr, STRIDE_W: tl.constexpr, PADDING_W: tl.constexpr, DILATION_W: tl.constexpr,
    GROUPS: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, SLOPE_ON_IMAGE: tl.constexpr,
    TOGETHER: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """As gemm_kernels.correlate, for TOGETHER groups: BLOCK_M of a group's K filters by BLOCK_N of their terms, which lie in
    `partial` as they do in the weight."""
    terms: tl.constexpr = C * TAPS_D * TAPS_H * TAPS_W
    blocks_g: tl.constexpr = (GROUPS + TOGETHER - 1) // TOGETHER
    index = tl.program_id(0)
    block_n = index % BLOCKS_N
    index = index // BLOCKS_N
    block_m = index % BLOCKS_M
    index = index // BLOCKS_M
    group = groups_of(index % blocks_g, TOGETHER)
    split = index // blocks_g

    m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    t = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    c, j_d, j_h, j_w = of_term(t, C, TAPS_H, TAPS_W, TAPS_D * TAPS_H * TAPS_W, CHANNELS_LAST)
    d_j, h_j, w_j = j_d * DILATION_D, j_h * DILATION_H, j_w * DILATION_W
    of_m = of_channels(m, RESULT_D, RESULT_H, RESULT_W, CHANNELS_LAST, WIDE)
    of_t = of_channels(c, IMAGE_D, IMAGE_H, IMAGE_W, CHANNELS_LAST, WIDE)
    of_t += ((d_j * IMAGE_H + h_j) * IMAGE_W + w_j) * (GROUPS * C if CHANNELS_LAST else 1)
    left_group = of_channels(group * K, RESULT_D, RESULT_H, RESULT_W, CHANNELS_LAST, WIDE)
    right_group = of_channels(group * C, IMAGE_D, IMAGE_H, IMAGE_W, CHANNELS_LAST, WIDE)

    sums = tl.zeros((TOGETHER, BLOCK_M, BLOCK_N) if TOGETHER > 1 else (BLOCK_M, BLOCK_N), tl.float32)
    of_bias = tl.zeros((TOGETHER, BLOCK_M) if TOGETHER > 1 else (BLOCK_M,), tl.float32)
    begin = split * BLOCKS_EACH
    for block in range(begin, tl.minimum(begin + BLOCKS_EACH, BLOCKS_K)):
        i, d, h, w = pixels(block, RESULT_D, RESULT_H, RESULT_W, BLOCK_K, False, WIDE)
        of_k = of_pixels(i, d, h, w, RESULT_D, RESULT_H, RESULT_W, GROUPS * K, CHANNELS_LAST)
        k_at, m_at = spread(of_k, of_m, CHANNELS_LAST)
        k_there, m_there = spread(i < N, m < K, CHANNELS_LAST)
        at = batched(k_at + m_at, TOGETHER) + left_group
        mask = of_groups(k_there & m_there, group, GROUPS, TOGETHER)
        left = tl.load(result + at, mask=mask, other=0.0)
        if ACTIVATION != "none" and not SLOPE_ON_IMAGE:
            value = tl.load(saved + at, mask=mask, other=0.0)
            left = through(left.to(tl.float32), value.to(tl.float32), ACTIVATION).to(left.dtype)
        if BIAS and block_n == 0:
            of_bias += tl.sum(left.to(tl.float32), len(left.shape) - (2 if CHANNELS_LAST else 1))

        d, h, w = d * STRIDE_D - PADDING_D, h * STRIDE_H - PADDING_H, w * STRIDE_W - PADDING_W
        of_k = of_pixels(i, d, h, w, IMAGE_D, IMAGE_H, IMAGE_W, GROUPS * C, CHANNELS_LAST)
        k_at, t_at = spread(of_k, of_t, CHANNELS_LAST)
        at = batched(k_at + t_at, TOGETHER) + right_group
        mask = inside(
            i, d, h, w, d_j, h_j, w_j, t < terms, N, IMAGE_D, IMAGE_H, IMAGE_W, TAPS_D, TAPS_H, TAPS_W, CHANNELS_LAST
        )
        mask = of_groups(mask, group, GROUPS, TOGETHER)
        right = tl.load(image + at, mask=mask, other=0.0)
        if ACTIVATION != "none" and SLOPE_ON_IMAGE:
            value = tl.load(saved + at, mask=mask, other=0.0)
            right = through(right.to(tl.float32), value.to(tl.float32), ACTIVATION).to(right.dtype)
        if CHANNELS_LAST:
            sums = product(turned(left, TOGETHER), right, sums, PRECISION)
        else:
            sums = product(left, turned(right, TOGETHER), sums, PRECISION)

    filters = split.to(tl.int64) * GROUPS + group
    at = batched(m[:, None] * terms + t[None, :], TOGETHER) + filters * (K * terms)
    mask = of_groups((m < K)[:, None] & (t < terms)[None, :], group, GROUPS, TOGETHER)
    tl.store(partial + at, sums.to(partial.dtype.element_ty), mask=mask)
    if BIAS and block_n == 0:
        column = of_bias[:, :, None] if TOGETHER > 1 else of_bias[:, None]
        there = of_groups((m < K)[:, None], group, GROUPS, TOGETHER)
        bias_at = batched(m[:, None], TOGETHER) + filters * K
        tl.store(bias_partial + bias_at, column.to(bias_partial.dtype.element_ty), mask=there)
