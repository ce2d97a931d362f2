"""torch's convolution as torch_xla lowers it: NCHW and OIHW, groups as XLA's feature groups; a gradient is the transpose
of the forward convolution, a bias and an activation are ops of their own in the same graph."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from accelops.kernels.conv.spec import ConvSpec

from ..launch import Launch

_LETTERS = {1: "H", 2: "HW", 3: "DHW"}
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


def launches(spec: ConvSpec, mesh: Mesh) -> tuple[Launch]:
    """Arguments as in kernels/conv/operands.py: those that the spec lacks are left out."""
    function = {"fprop": _fprop, "dgrad": _dgrad, "wgrad": _wgrad}[spec.direction](spec)
    x, w, y = (jax.ShapeDtypeStruct(shape, jnp.dtype(spec.dtype)) for shape in (spec.input, spec.weight, spec.output))
    bias = jax.ShapeDtypeStruct((spec.out_channels,), jnp.dtype(spec.dtype))
    if spec.direction == "fprop":
        return (Launch(function, (x, w, bias) if spec.bias else (x, w)),)
    saved = () if spec.activation == "none" else (y,)
    return (Launch(function, (y, w if spec.direction == "dgrad" else x, *saved)),)


def convolution(spec: ConvSpec) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The forward convolution of (input, weight); a transposed one is the transpose of a convolution."""
    if not spec.transposed:
        return _convolution(spec)
    down, larger = _convolution(spec), jax.ShapeDtypeStruct(spec.output, jnp.dtype(spec.dtype))
    return lambda x, w: jax.linear_transpose(lambda y: down(y, w), larger)(x)[0]


def _convolution(spec: ConvSpec) -> Callable[[jax.Array, jax.Array], jax.Array]:
    letters = _LETTERS[spec.ndim]
    return lambda x, w: lax.conv_general_dilated(
        x,
        w,
        spec.stride,
        [(padding, padding) for padding in spec.padding],
        rhs_dilation=spec.dilation,
        dimension_numbers=("NC" + letters, "OI" + letters, "NC" + letters),
        feature_group_count=spec.groups,
    )


def _fprop(spec: ConvSpec) -> Callable[..., jax.Array]:
    forward = convolution(spec)

    def fprop(x: jax.Array, w: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        y = forward(x, w)
        if bias is not None:
            y = y + bias.reshape(1, -1, *[1] * spec.ndim)
        return _ACTIVATIONS[spec.activation](y) if spec.activation in _ACTIVATIONS else y

    return fprop


def _dgrad(spec: ConvSpec) -> Callable[..., jax.Array]:
    forward, x = convolution(spec), jax.ShapeDtypeStruct(spec.input, jnp.dtype(spec.dtype))

    def dgrad(grad: jax.Array, w: jax.Array, saved: jax.Array | None = None) -> jax.Array:
        return jax.linear_transpose(lambda x: forward(x, w), x)(_before(spec, grad, saved))[0]

    return dgrad


def _wgrad(spec: ConvSpec) -> Callable[..., tuple[jax.Array, ...]]:
    forward, w = convolution(spec), jax.ShapeDtypeStruct(spec.weight, jnp.dtype(spec.dtype))

    def wgrad(grad: jax.Array, x: jax.Array, saved: jax.Array | None = None) -> tuple[jax.Array, ...]:
        grad = _before(spec, grad, saved)
        weight = jax.linear_transpose(lambda w: forward(x, w), w)(grad)[0]
        return (weight, grad.sum((0, *range(2, grad.ndim)))) if spec.bias else (weight,)

    return wgrad


def _before(spec: ConvSpec, grad: jax.Array, saved: jax.Array | None) -> jax.Array:
    """The gradient before the activation, whose argument (or, for ReLU, result) was saved."""
    if saved is None:
        return grad
    return jax.vjp(_ACTIVATIONS[spec.activation], saved)[1](grad)[0]
