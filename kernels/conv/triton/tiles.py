"""What the kernels of all families share: activations on a tile, where a walk begins, the sum over splits, and a copy.

Activations as in torch: ReLU lets NaN through, GELU is the exact one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from accelops.targets import triton as gpu


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """x through the activation, in fp32."""
    if ACTIVATION == "relu":
        x = tl.where(x <= 0, 0.0, x)
    elif ACTIVATION == "silu":
        x = x * tl.sigmoid(x)
    elif ACTIVATION == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    return x


@triton.jit
def through(gradient, saved, ACTIVATION: tl.constexpr):
    """The gradient before the activation, from the one behind it; `saved` is the activation's result for ReLU, its
    argument for SiLU and GELU. All in fp32."""
    if ACTIVATION == "relu":
        gradient = tl.where(saved <= 0, 0.0, gradient)
    elif ACTIVATION == "silu":
        s = tl.sigmoid(saved)
        gradient = gradient * (s * (1.0 + saved * (1.0 - s)))
    elif ACTIVATION == "gelu":
        cdf = 0.5 * (1.0 + tl.erf(saved * 0.7071067811865476))
        gradient = gradient * (cdf + saved * tl.exp(-0.5 * saved * saved) * 0.3989422804014327)
    return gradient


@triton.jit
def first_tap(
    phase, TAPS: tl.constexpr, PHASES: tl.constexpr, STEP: tl.constexpr, OFFSET: tl.constexpr, DILATION: tl.constexpr
):
    """problem.Walk's `first`; TAPS where the phase has no tap at all."""
    first = phase * 0
    if PHASES > 1:
        first += TAPS
        for i in tl.static_range(STEP):
            first = tl.where((phase + OFFSET - (STEP - 1 - i) * DILATION) % PHASES == 0, STEP - 1 - i, first)
    return first


@triton.jit
def sum_splits(partial, out, n, SPLITS, BLOCK: tl.constexpr):
    """out[i] = the sum of partial[s, i] over s = 0 ... SPLITS - 1, in that order: deterministic."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    at = partial + i
    for _ in range(SPLITS):
        total += tl.load(at, mask=i < n, other=0.0)
        at += n
    tl.store(out + i, total.to(out.dtype.element_ty), mask=i < n)


@triton.jit
def copy(tensor, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(tensor + i, mask=i < n), mask=i < n)


# Triton's interpreter multiplies bf16 as if its bits were integers.
_INTERPRETED = tl.constexpr(gpu.emulated())


@triton.jit
def product(left, right, sums, PRECISION: tl.constexpr):
    """sums + left @ right, in fp32; PRECISION, "ieee" or "tf32", is that of fp32 operands."""
    if _INTERPRETED:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, sums, input_precision=PRECISION)


def add_splits(partial: Tensor, out: Tensor) -> None:
    """Write the sum of partial (splits, numel of out), fp32, over its first dimension into `out`, in memory order."""
    splits, n = partial.shape
    gpu.launch(sum_splits, (-(-n // 256),), partial, out, n, splits, BLOCK=256, num_warps=4)


def aligned(tensor: Tensor, alignment: int) -> Tensor:
    """`tensor`, dense, or a copy where its address is no multiple of `alignment` bytes; a launch makes it, so that a replay
    makes it too."""
    if tensor.data_ptr() % alignment == 0:
        return tensor
    out, n = torch.empty_like(tensor), tensor.numel()
    gpu.launch(copy, (-(-n // 1024),), tensor, out, n, BLOCK=1024, num_warps=4)
    return out
