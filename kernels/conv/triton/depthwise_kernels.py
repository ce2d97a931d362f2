"""The kernels of the depthwise family.

gather and scatter (`slide`): a tile is BLOCK_C channels by BLOCK_W pixels of a line, whichever of the two lies next to each
other in memory being what threads run along. A program holds ROWS lines of results in registers and slides down the source:
each source line is loaded once per tap of a line, and serves every line of results that it meets, so that ROWS lines cost
ROWS + R - 1 times S loads where each for itself would cost ROWS times R times S.
wgrad (`weigh`): a program holds ROWS by COLUMNS taps of its filters as sums in registers, and slides down the image: each
line of it is loaded once per tap of a line, and multiplied with the last lines of the result, which a ring of DEPTH keeps.

Scalar conditions narrow a limit and never become part of a mask: Triton's interpreter loses the type of a scalar's truth.
"""

import triton
import triton.language as tl

from .tiles import activate, first_tap, through


@triton.constexpr_function
def meeting(apart: int, reach: int, count: int) -> int:
    """The j < count of problem.Walk by which a source and a destination `apart` from each other meet; -1 if they do not."""
    j = apart // reach
    return j if j * reach == apart and 0 <= j < count else -1


@triton.jit
def slide(
    source, weight, bias, saved, out, before, C,
    SOURCE_SIZE_D, SOURCE_SIZE_H, SOURCE_SIZE_W, SIZE_D, SIZE_H, SIZE_W, BLOCKS_C, BLOCKS_D, BLOCKS_H, BLOCKS_W,
    TAPS_D: tl.constexpr, PHASES_D: tl.constexpr, SOURCE_D: tl.constexpr, COUNT_D: tl.constexpr, STEP_D: tl.constexpr,
    REACH_D: tl.constexpr, OFFSET_D: tl.constexpr, DILATION_D: tl.constexpr,
    TAPS_H: tl.constexpr, PHASES_H: tl.constexpr, SOURCE_H: tl.constexpr, COUNT_H: tl.constexpr, STEP_H: tl.constexpr,
    REACH_H: tl.constexpr, OFFSET_H: tl.constexpr, DILATION_H: tl.constexpr, PARTIAL_H: tl.constexpr,
    TAPS_W: tl.constexpr, PHASES_W: tl.constexpr, SOURCE_W: tl.constexpr, COUNT_W: tl.constexpr, STEP_W: tl.constexpr,
    REACH_W: tl.constexpr, OFFSET_W: tl.constexpr, DILATION_W: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
    SAVE: tl.constexpr, FIRST_LINE: tl.constexpr, LINES: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_W: tl.constexpr, ROWS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Destination lines phase_h + PHASES_H * (ROWS * block + u), u < ROWS, of one image, one depth, BLOCK_C channels."""
    index = tl.program_id(0)
    block_w = index % BLOCKS_W
    index = index // BLOCKS_W
    block_h = index % BLOCKS_H
    index = index // BLOCKS_H
    phase = index % (PHASES_D * PHASES_H * PHASES_W)
    index = index // (PHASES_D * PHASES_H * PHASES_W)
    block_d = index % BLOCKS_D
    index = index // BLOCKS_D
    block_c = index % BLOCKS_C
    image = index // BLOCKS_C
    if WIDE:
        image = image.to(tl.int64)
    phase_d, phase_h, phase_w = phase // (PHASES_H * PHASES_W), phase // PHASES_W % PHASES_H, phase % PHASES_W
    first_d = first_tap(phase_d, TAPS_D, PHASES_D, STEP_D, OFFSET_D, DILATION_D)
    first_h = first_tap(phase_h, TAPS_H, PHASES_H, STEP_H, OFFSET_H, DILATION_H)
    first_w = first_tap(phase_w, TAPS_W, PHASES_W, STEP_W, OFFSET_W, DILATION_W)
    base_d = (phase_d + OFFSET_D - first_d * DILATION_D) // PHASES_D + block_d * SOURCE_D
    base_h = (phase_h + OFFSET_H - first_h * DILATION_H) // PHASES_H + block_h * ROWS * SOURCE_H
    base_w = (phase_w + OFFSET_W - first_w * DILATION_W) // PHASES_W

    c = block_c * BLOCK_C + tl.arange(0, BLOCK_C)
    w = block_w * BLOCK_W + tl.arange(0, BLOCK_W)
    filter = weight + c * (TAPS_D * TAPS_H * TAPS_W)  # in both memory formats
    source_pixels = SOURCE_SIZE_D * SOURCE_SIZE_H * SOURCE_SIZE_W
    pixels = SIZE_D * SIZE_H * SIZE_W
    if CHANNELS_LAST:
        pixel_stride, source_c, out_c = C, c, c
    else:
        if WIDE:
            c = c.to(tl.int64)
        pixel_stride, source_c, out_c = 1, c * source_pixels, c * pixels
    source_c += image * C * source_pixels
    out_c += image * C * pixels

    sums = ()
    for _ in tl.static_range(ROWS):
        sums = sums + (tl.zeros((BLOCK_C, BLOCK_W), tl.float32),)
    for j_d in range(COUNT_D):
        tap_d = first_d + j_d * STEP_D
        d = base_d + j_d * REACH_D
        in_d = (d >= 0) & (d < SOURCE_SIZE_D) & (tap_d < TAPS_D)
        for j_w in tl.range(COUNT_W, loop_unroll_factor=UNROLL):  # all at once, the filter would fill the registers
            tap_w = first_w + j_w * STEP_W
            x = base_w + w * SOURCE_W + j_w * REACH_W
            end_c = tl.where((tap_d < TAPS_D) & (tap_w < TAPS_W), C, 0)
            for line in tl.static_range(LINES):
                h = base_h + FIRST_LINE + line
                end = tl.where(in_d & (h >= 0) & (h < SOURCE_SIZE_H) & (tap_w < TAPS_W), SOURCE_SIZE_W, 0)
                inside = (c < C)[:, None] & ((x >= 0) & (x < end))[None, :]
                at = source_c[:, None] + (((d * SOURCE_SIZE_H + h) * SOURCE_SIZE_W + x) * pixel_stride)[None, :]
                value = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
                if SLOPE:
                    value = through(value, tl.load(saved + at, mask=inside, other=0.0).to(tl.float32), ACTIVATION)
                new = ()
                for u in tl.static_range(ROWS):
                    if meeting(FIRST_LINE + line - u * SOURCE_H, REACH_H, COUNT_H) >= 0:
                        tap_h = first_h + meeting(FIRST_LINE + line - u * SOURCE_H, REACH_H, COUNT_H) * STEP_H
                        tap = (tap_d * TAPS_H + tap_h) * TAPS_W + tap_w
                        factor = tl.load(filter + tap, mask=c < tl.where(tap_h < TAPS_H, end_c, 0), other=0.0)
                        sum = sums[u] + value * factor.to(tl.float32)[:, None]
                        if PARTIAL_H:  # a source that this phase does not meet may hold NaN
                            sum = tl.where(tap_h < TAPS_H, sum, sums[u])
                        new = new + (sum,)
                    else:
                        new = new + (sums[u],)
                sums = new

    to_d = phase_d + PHASES_D * block_d
    to_w = phase_w + PHASES_W * w
    added = tl.zeros((BLOCK_C,), tl.float32)
    if BIAS:
        added = tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)
    for u in tl.static_range(ROWS):
        to_h = phase_h + PHASES_H * (block_h * ROWS + u)
        inside = (c < C)[:, None] & (to_w < tl.where((to_d < SIZE_D) & (to_h < SIZE_H), SIZE_W, 0))[None, :]
        at = out_c[:, None] + (((to_d * SIZE_H + to_h) * SIZE_W + to_w) * pixel_stride)[None, :]
        value = sums[u] + added[:, None]
        if SAVE:
            tl.store(before + at, value.to(before.dtype.element_ty), mask=inside)
        if not SLOPE:
            value = activate(value, ACTIVATION)
        tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def weigh(
    image, result, saved, partial, bias_partial, C, IMAGE_D, IMAGE_H, IMAGE_W, RESULT_D, RESULT_H, RESULT_W,
    BLOCKS_C, BLOCKS_H, BLOCKS_W, LINES, UNITS, UNITS_EACH,
    TAPS_D: tl.constexpr, STRIDE_D: tl.constexpr, PADDING_D: tl.constexpr, DILATION_D: tl.constexpr,
    TAPS_H: tl.constexpr, STRIDE_H: tl.constexpr, PADDING_H: tl.constexpr, DILATION_H: tl.constexpr,
    TAPS_W: tl.constexpr, STRIDE_W: tl.constexpr, PADDING_W: tl.constexpr, DILATION_W: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr,
    SLOPE_ON_IMAGE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_W: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Taps (tap_d, ROWS from first_h on, COLUMNS from first_w on) of BLOCK_C filters, over a share of the units: LINES lines
    by BLOCK_W pixels of the result, at one depth of one image."""
    down: tl.constexpr = (TAPS_H + ROWS - 1) // ROWS
    across: tl.constexpr = (TAPS_W + COLUMNS - 1) // COLUMNS
    index = tl.program_id(0)
    first_w = index % across * COLUMNS
    index = index // across
    first_h = index % down * ROWS
    index = index // down
    tap_d = index % TAPS_D
    index = index // TAPS_D
    block_c = index % BLOCKS_C
    split = index // BLOCKS_C

    c = block_c * BLOCK_C + tl.arange(0, BLOCK_C)
    image_pixels, result_pixels = IMAGE_D * IMAGE_H * IMAGE_W, RESULT_D * RESULT_H * RESULT_W
    if CHANNELS_LAST:
        pixel_stride, image_c, result_c = C, c, c
    else:
        if WIDE:
            c = c.to(tl.int64)
        pixel_stride, image_c, result_c = 1, c * image_pixels, c * result_pixels

    sums = ()
    for _ in tl.static_range(ROWS * COLUMNS):
        sums = sums + (tl.zeros((BLOCK_C, BLOCK_W), tl.float32),)
    of_bias = tl.zeros((BLOCK_C, BLOCK_W), tl.float32)
    for unit in range(split * UNITS_EACH, tl.minimum((split + 1) * UNITS_EACH, UNITS)):
        w = unit % BLOCKS_W * BLOCK_W + tl.arange(0, BLOCK_W)
        first_line = unit // BLOCKS_W % BLOCKS_H * LINES
        d = unit // (BLOCKS_W * BLOCKS_H) % RESULT_D
        n = unit // (BLOCKS_W * BLOCKS_H * RESULT_D)
        if WIDE:
            n = tl.cast(n, tl.int64)
        result_at = (result_c + n * C * result_pixels)[:, None]
        image_at = (image_c + n * C * image_pixels)[:, None]
        image_d = d * STRIDE_D - PADDING_D + tap_d * DILATION_D

        ring = ()  # the last lines of the result, the latest first
        for _ in tl.static_range(DEPTH):
            ring = ring + (tl.zeros((BLOCK_C, BLOCK_W), tl.float32),)
        for step in range(LINES + DEPTH - 1):
            h = first_line + step
            there = (c < C)[:, None] & (w < tl.where((step < LINES) & (h < RESULT_H), RESULT_W, 0))[None, :]
            at = result_at + (((d * RESULT_H + h) * RESULT_W + w) * pixel_stride)[None, :]
            right = tl.load(result + at, mask=there, other=0.0).to(tl.float32)
            if ACTIVATION != "none" and not SLOPE_ON_IMAGE:
                right = through(right, tl.load(saved + at, mask=there, other=0.0).to(tl.float32), ACTIVATION)
            if BIAS:
                of_bias += right
            latest = (right,)
            for q in tl.static_range(DEPTH - 1):
                latest = latest + (ring[q],)
            ring = latest
            for r in tl.static_range(STRIDE_H):
                y = h * STRIDE_H + r - PADDING_H + first_h * DILATION_H
                in_line = (image_d >= 0) & (image_d < IMAGE_D) & (y >= 0) & (y < IMAGE_H)
                for i in tl.static_range(COLUMNS):
                    x = w * STRIDE_W - PADDING_W + (first_w + i) * DILATION_W
                    end = tl.where(in_line & (first_w + i < TAPS_W), IMAGE_W, 0)
                    inside = (c < C)[:, None] & ((x >= 0) & (x < end))[None, :]
                    at = image_at + (((image_d * IMAGE_H + y) * IMAGE_W + x) * pixel_stride)[None, :]
                    left = tl.load(image + at, mask=inside, other=0.0).to(tl.float32)
                    if ACTIVATION != "none" and SLOPE_ON_IMAGE:
                        left = through(left, tl.load(saved + at, mask=inside, other=0.0).to(tl.float32), ACTIVATION)
                    for q in tl.static_range(DEPTH):  # the line that lies q lines back meets this one with the tap
                        if meeting(q * STRIDE_H + r, DILATION_H, ROWS) >= 0:
                            new = ()
                            for tap in tl.static_range(ROWS * COLUMNS):
                                if tap == meeting(q * STRIDE_H + r, DILATION_H, ROWS) * COLUMNS + i:
                                    new = new + (sums[tap] + left * ring[q],)
                                else:
                                    new = new + (sums[tap],)
                            sums = new

    filter = partial + (split.to(tl.int64) * C + c) * (TAPS_D * TAPS_H * TAPS_W)
    for j in tl.static_range(ROWS):
        for i in tl.static_range(COLUMNS):
            tap = (tap_d * TAPS_H + first_h + j) * TAPS_W + first_w + i
            end = tl.where((first_h + j < TAPS_H) & (first_w + i < TAPS_W), C, 0)
            tl.store(filter + tap, tl.sum(sums[j * COLUMNS + i], 1), mask=c < end)
    if BIAS:  # the program of the filter's first tap has seen all of its gradients
        tl.store(
            bias_partial + split * C + c, tl.sum(of_bias, 1), mask=c < tl.where(tap_d + first_h + first_w == 0, C, 0)
        )
