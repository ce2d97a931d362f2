"""The fused activations in fp32, on whole arrays and on a kernel's blocks alike: forward, and the slope backward."""

from __future__ import annotations

from math import pi, sqrt

import jax
import jax.numpy as jnp
from jax import lax


def activated(x: jax.Array, activation: str) -> jax.Array:
    """Shape and dtype of x, which is fp32."""
    if activation == "relu":
        return jnp.maximum(x, 0)
    if activation == "silu":
        return x * jax.nn.sigmoid(x)
    return x * _normal_below(x) if activation == "gelu" else x


def through_slope(grad: jax.Array, saved: jax.Array | None, activation: str) -> jax.Array:
    """The gradient before the activation, in grad's dtype. `saved` is the output for ReLU, else what was before it."""
    if activation == "none" or saved is None:
        return grad
    if activation == "relu":
        return jnp.where(
            saved <= 0, jnp.zeros_like(grad), grad
        )  # as torch: a NaN that was saved lets the gradient pass
    x, g = saved.astype(jnp.float32), grad.astype(jnp.float32)
    if activation == "silu":
        s = jax.nn.sigmoid(x)
        slope = s * (1 + x * (1 - s))
    else:
        slope = _normal_below(x) + x * jnp.exp(-0.5 * x * x) * (1 / sqrt(2 * pi))
    return (g * slope).astype(grad.dtype)


def _normal_below(x: jax.Array) -> jax.Array:
    """The share of a normal distribution that lies below x."""
    return 0.5 * (1 + lax.erf(x * sqrt(0.5)))
