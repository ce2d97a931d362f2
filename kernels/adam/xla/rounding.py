"""Stochastic rounding to bf16 in JAX: kernels/adam/rounding.py has its source, and draws the same numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..rounding import GROUP

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def rounded(values: jax.Array, seed: jax.Array, row: int, step: jax.Array) -> jax.Array:
    """fp32 values as bf16, up or down; `seed` is two int32, the lower half first, `step` the count of the step."""
    exact = values.view(jnp.int32)
    raised = exact + _bits(values.size, seed, row, step).reshape(values.shape)
    away = (raised >> 16 << 16).view(jnp.float32)
    return jnp.where(jnp.isfinite(values), away, values).astype(jnp.bfloat16)


def _bits(numel: int, seed: jax.Array, row: int, step: jax.Array) -> jax.Array:
    """16 random bits for each element, as int32."""
    group = jnp.arange(-(-numel // GROUP), dtype=jnp.uint32)
    same = jnp.zeros_like(group)
    count = step.reshape(()).astype(jnp.uint32)
    words = jnp.stack(_philox(seed, (group, same + jnp.uint32(row), same + count, same)), 1)
    return jnp.stack((words & 0xFFFF, words >> 16), 2).reshape(-1)[:numel].astype(jnp.int32)


def _philox(seed: jax.Array, counters: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    c0, c1, c2, c3 = counters
    k0, k1 = seed.astype(jnp.uint32)
    for _ in range(10):
        (high0, low0), (high1, low1) = _product(_MULTIPLIERS[0], c0), _product(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + jnp.uint32(_WEYL[0]), k1 + jnp.uint32(_WEYL[1])
    return c0, c1, c2, c3


def _product(a: int, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The upper and the lower 32 bits of a product, from those of 16-bit halves: a TPU multiplies no 64-bit numbers."""
    a0, a1 = jnp.uint32(a & 0xFFFF), jnp.uint32(a >> 16)
    b0, b1 = b & 0xFFFF, b >> 16
    middle = a1 * b0 + (a0 * b0 >> 16)
    other = a0 * b1 + (middle & 0xFFFF)
    return a1 * b1 + (middle >> 16) + (other >> 16), jnp.uint32(a) * b
