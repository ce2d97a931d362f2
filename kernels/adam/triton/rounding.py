"""Stochastic rounding to bf16 within the step: kernels/adam/rounding.py has its source, and draws the same numbers."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def bits(seed, row, step, first, BLOCK: tl.constexpr):
    """16 random bits for each of BLOCK elements from `first` on, a multiple of 8, of the parameter in `row`; as int32."""
    group = (first // 8).to(tl.uint32) + tl.arange(0, BLOCK // 8).to(tl.uint32)
    same = group * 0
    a, b, c, d = tl.philox(seed, group, same + row.to(tl.uint32), same + step.to(tl.uint32), same)
    words = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [BLOCK // 2])
    return tl.reshape(tl.join(words & 0xFFFF, words >> 16), [BLOCK]).to(tl.int32)


@triton.jit
def rounded(values, drawn):
    """fp32 values, up or down to bf16 by 16 random bits each."""
    exact = values.to(tl.int32, bitcast=True)
    special = (exact & 0x7F800000) == 0x7F800000  # infinities, and NaNs, of which the upper bits must not be cut to one
    kept = exact | tl.where((exact & 0x007FFFFF) != 0, 0x00400000, 0)
    return (tl.where(special, kept, exact + drawn) >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
