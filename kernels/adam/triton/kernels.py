"""The kernels of the Adam step: `count` raises the step counts that lie on the device and works out what follows from
them, a few numbers a parameter; `step` does the rest.

`step` is the multi-tensor launch of NVIDIA's apex (csrc/multi_tensor_apply.cuh), with its tables in memory in the place of
kernel arguments, which hold a few hundred tensors. A program takes one chunk: at most BLOCK * PIECES elements of one
parameter, found by its number in a table of (row, index) pairs. Every element of every tensor is read once and written
once, arithmetic is in fp32 registers as in torch's fused kernel (aten/src/ATen/native/cuda/fused_adam_utils.cuh), but for the
quotient, which is within 2 units in the last place of the update: 28 bytes and 12 flops an fp32 parameter.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .blockwise import load_blocks, store_blocks
from .rounding import bits, rounded

# The rows of the table of addresses: one for each list of tensors; 0 where a list is empty.
PARAM = tl.constexpr(0)
EXP_AVG = tl.constexpr(1)
EXP_AVG_SQ = tl.constexpr(2)
LARGEST = tl.constexpr(3)
MASTER_COPY = tl.constexpr(4)
AVERAGE = tl.constexpr(5)
STEP_COUNT = tl.constexpr(6)
SCALE = tl.constexpr(7)
SCALE_SQ = tl.constexpr(8)


@triton.jit
def number(given, ON_DEVICE: tl.constexpr):
    """A hyperparameter that is a number, or lies on the device."""
    if ON_DEVICE:
        return tl.load(given)
    else:
        return given


@triton.jit(do_not_specialize=["tensors"])
def count(
    addresses, wide, numbers, found_inf, lr, log_beta1, log_beta2, weight_decay, tensors,
    LR_ON_DEVICE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Raise the counts t of BLOCK parameters, but for those of a step that is skipped, and write into the rows of `numbers`
    lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), 1 - lr * weight_decay, and t. `wide` says which counts are fp64."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < tensors
    address = tl.load(addresses + STEP_COUNT * tensors + row, mask=inside, other=0)
    is_wide = tl.load(wide + row, mask=inside, other=0) != 0
    wide_at = address.to(tl.pointer_type(tl.float64))
    narrow_at = address.to(tl.pointer_type(tl.float32))
    t = tl.load(wide_at, mask=inside & is_wide, other=0.0)
    t += tl.load(narrow_at, mask=inside & (is_wide == 0), other=0.0).to(tl.float64)
    if found_inf is not None:
        t += (tl.load(found_inf) == 0).to(tl.float64)
    else:
        t += 1
    tl.store(wide_at, t, mask=inside & is_wide)
    tl.store(narrow_at, t.to(tl.float32), mask=inside & (is_wide == 0))
    rate = number(lr, LR_ON_DEVICE) * tl.full([BLOCK], 1, tl.float64)
    tl.store(numbers + row, (rate / (1 - tl.exp(t * log_beta1))).to(tl.float32), mask=inside)
    root = 1 / tl.sqrt(1 - tl.exp(t * log_beta2))
    tl.store(numbers + tensors + row, root.to(tl.float32), mask=inside)
    decay = (1 - rate * weight_decay).to(tl.float32)
    tl.store(numbers + 2 * tensors + row, decay, mask=inside)
    tl.store(numbers + 3 * tensors + row, t.to(tl.float32), mask=inside)


@triton.jit(do_not_specialize=["tensors", "t", "seed"])
def step(
    chunks, sizes, codes, addresses, grads, numbers, found_inf, grad_scale, grad_factor, step_size, root, decay, t,
    l2, beta1_rest, beta2, beta2_rest, eps, ema_rest, quantiles, seed, tensors,
    DTYPE: tl.constexpr, STATE: tl.constexpr, AMSGRAD: tl.constexpr, MASTER: tl.constexpr, EMA: tl.constexpr,
    STOCHASTIC: tl.constexpr, COUPLED: tl.constexpr, MAXIMIZE: tl.constexpr, FACTOR_ON_DEVICE: tl.constexpr,
    VECTOR: tl.constexpr, BLOCK: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """Step one chunk. DTYPE is that of all parameters, or None where `codes` says it of each; STATE that of all moments,
    or None where they have their parameters'; uint8 means indices into `quantiles`. `numbers` are those of `count`, or
    None where all parameters have `step_size`, `root`, `decay` and `t`. Gradients are multiplied by `grad_factor` and
    divided by `grad_scale`. STOCHASTIC: bf16 parameters are rounded by bits that `seed` begins."""
    chunk = chunks + 2 * tl.program_id(0).to(tl.int64)
    row = tl.load(chunk)
    first = tl.load(chunk + 1).to(tl.int64) * (BLOCK * PIECES)
    length = tl.minimum(tl.load(sizes + row) - first, BLOCK * PIECES).to(tl.int32)
    if found_inf is not None:
        length = tl.where(tl.load(found_inf) == 0, length, 0)
    if numbers is not None:
        step_size = tl.load(numbers + row)
        root = tl.load(numbers + tensors + row)
        decay = tl.load(numbers + 2 * tensors + row)
        t = tl.load(numbers + 3 * tensors + row).to(tl.int32)
    factor = number(grad_factor, FACTOR_ON_DEVICE)
    if grad_scale is not None:
        factor = tl.div_rn(factor, tl.load(grad_scale))
    if MAXIMIZE:
        factor = -factor
    if DTYPE is None:
        code = tl.load(codes + row)
        for CODE in tl.static_range(3):
            if code == CODE:
                KNOWN: tl.constexpr = tl.float32 if CODE == 0 else (tl.bfloat16 if CODE == 1 else tl.float16)
                step_parameter(
                    addresses, grads, row, tensors, first, length, factor, step_size, root, decay, t, l2, beta1_rest, beta2,
                    beta2_rest, eps, ema_rest, quantiles, seed, KNOWN, STATE, AMSGRAD, MASTER, EMA, STOCHASTIC, COUPLED,
                    VECTOR, BLOCK,
                )  # fmt: skip
    else:
        step_parameter(
            addresses, grads, row, tensors, first, length, factor, step_size, root, decay, t, l2, beta1_rest, beta2,
            beta2_rest, eps, ema_rest, quantiles, seed, DTYPE, STATE, AMSGRAD, MASTER, EMA, STOCHASTIC, COUPLED,
            VECTOR, BLOCK,
        )  # fmt: skip


@triton.jit
def step_parameter(
    addresses, grads, row, tensors, first, length, factor, step_size, root, decay, t, l2, beta1_rest, beta2, beta2_rest,
    eps, ema_rest, quantiles, seed, DTYPE: tl.constexpr, STATE: tl.constexpr, AMSGRAD: tl.constexpr, MASTER: tl.constexpr,
    EMA: tl.constexpr, STOCHASTIC: tl.constexpr, COUPLED: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`length` elements from `first` on of the parameter of a row.

    Where all its tensors begin at 16 bytes, a thread moves VECTOR elements at once if `length` is a multiple of that: 16
    bytes of the widest. So does every chunk of a tensor that torch has allocated, but the last one of an odd length.
    Gradients that are views into a bucket may begin anywhere; then a thread moves single elements.
    """
    state = addresses + row
    param = tl.load(state + PARAM * tensors)
    grad = tl.load(grads + row)
    exp_avg = tl.load(state + EXP_AVG * tensors)
    exp_avg_sq = tl.load(state + EXP_AVG_SQ * tensors)
    largest = tl.load(state + LARGEST * tensors)
    master = tl.load(state + MASTER_COPY * tensors)
    ema = tl.load(state + AVERAGE * tensors)
    scale = tl.load(state + SCALE * tensors)
    scale_sq = tl.load(state + SCALE_SQ * tensors)
    places = param | grad | exp_avg | exp_avg_sq | largest | master | ema
    if (places % 16) + (length % VECTOR) == 0:
        step_run(
            param, grad, exp_avg, exp_avg_sq, largest, master, ema, scale, scale_sq, row, first, length, factor,
            step_size, root, decay, t, l2, beta1_rest, beta2, beta2_rest, eps, ema_rest, quantiles, seed,
            DTYPE, STATE, AMSGRAD, MASTER, EMA, STOCHASTIC, COUPLED, VECTOR, BLOCK,
        )  # fmt: skip
    else:
        step_run(
            param, grad, exp_avg, exp_avg_sq, largest, master, ema, scale, scale_sq, row, first, length, factor,
            step_size, root, decay, t, l2, beta1_rest, beta2, beta2_rest, eps, ema_rest, quantiles, seed,
            DTYPE, STATE, AMSGRAD, MASTER, EMA, STOCHASTIC, COUPLED, 1, BLOCK,
        )  # fmt: skip


@triton.jit
def pointer(address, first, DTYPE: tl.constexpr, VECTOR: tl.constexpr):
    ITEMSIZE: tl.constexpr = DTYPE.primitive_bitwidth // 8
    return tl.multiple_of(address.to(tl.pointer_type(DTYPE)), VECTOR * ITEMSIZE) + first


@triton.jit
def step_run(
    param_at, grad_at, exp_avg_at, exp_avg_sq_at, largest_at, master_at, ema_at, scale_at, scale_sq_at, row, first, length,
    factor, step_size, root, decay, t, l2, beta1_rest, beta2, beta2_rest, eps, ema_rest, quantiles, seed,
    DTYPE: tl.constexpr, STATE: tl.constexpr, AMSGRAD: tl.constexpr, MASTER: tl.constexpr, EMA: tl.constexpr,
    STOCHASTIC: tl.constexpr, COUPLED: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    length = length // VECTOR * VECTOR  # it is a multiple already; so the compiler sees it
    MOMENT: tl.constexpr = DTYPE if STATE is None else STATE
    QUANTISED: tl.constexpr = MOMENT == tl.uint8  # noqa: SIM300
    param = pointer(param_at, first, DTYPE, VECTOR)
    grad = pointer(grad_at, first, DTYPE, VECTOR)
    exp_avg = pointer(exp_avg_at, first, MOMENT, VECTOR)
    exp_avg_sq = pointer(exp_avg_sq_at, first, MOMENT, VECTOR)
    largest = pointer(largest_at, first, MOMENT, VECTOR)
    master = pointer(master_at, first, tl.float32, VECTOR)
    ema = pointer(ema_at, first, tl.float32, VECTOR)
    scale = pointer(scale_at, first // 256, tl.float32, 1)
    scale_sq = pointer(scale_sq_at, first // 256, tl.float32, 1)
    begin = length * 0
    while begin < length:  # a range up to a tensor is beyond the interpreter of Triton 3.6 beside numpy 2.4
        begin = tl.multiple_of(begin, BLOCK)
        if QUANTISED:
            i = begin + 256 * tl.arange(0, BLOCK // 256)[:, None] + tl.arange(0, 256)[None, :]
        else:
            i = begin + tl.arange(0, BLOCK)
        inside = i < length
        g = tl.load(grad + i, mask=inside).to(tl.float32) * factor
        p = tl.load((master if MASTER else param) + i, mask=inside).to(tl.float32)
        if QUANTISED:
            m = load_blocks(exp_avg, scale, i, inside, begin, length, quantiles)
            v = load_blocks(exp_avg_sq, scale_sq, i, inside, begin, length, quantiles + 256)
        else:
            m = tl.load(exp_avg + i, mask=inside).to(tl.float32)
            v = tl.load(exp_avg_sq + i, mask=inside).to(tl.float32)
        if COUPLED:
            g += l2 * p
        p *= decay
        m += (g - m) * beta1_rest
        v = v * beta2 + beta2_rest * g * g
        # At once, which frees their registers; encoding wants more, and comes when all others are free.
        if not QUANTISED:
            tl.store(exp_avg + i, m.to(MOMENT), mask=inside)
            tl.store(exp_avg_sq + i, v.to(MOMENT), mask=inside)
        if AMSGRAD:
            before = tl.load(largest + i, mask=inside).to(tl.float32)
            most = tl.maximum(before, v, propagate_nan=tl.PropagateNan.ALL)
            tl.store(largest + i, most.to(MOMENT), mask=inside)
        else:
            most = v
        p -= step_size * m / (tl.sqrt_rn(most) * root + eps)
        if STOCHASTIC and DTYPE == tl.bfloat16:  # noqa: SIM300
            drawn = bits(seed, row, t, first + begin, BLOCK)
            tl.store(param + i, rounded(p, tl.reshape(drawn, i.shape)), mask=inside)
        else:
            tl.store(param + i, p.to(DTYPE), mask=inside)
        if MASTER:
            tl.store(master + i, p, mask=inside)
        if EMA:
            average = tl.load(ema + i, mask=inside)
            tl.store(ema + i, average + (p - average) * ema_rest, mask=inside)
        if QUANTISED:
            store_blocks(exp_avg, scale, i, inside, begin, length, m, True)
            store_blocks(exp_avg_sq, scale_sq, i, inside, begin, length, v, False)
        begin += BLOCK
