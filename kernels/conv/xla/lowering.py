"""Convolution in JAX: a Config and a ConvSpec become a function of arrays, which XLA compiles as one program.

Arrays lie as the memory of torch's tensors does: (N, C, *spatial), (K, C / groups, *kernel) in the contiguous format,
(N, *spatial, C), (K, *kernel, C / groups) in channels_last, so that nothing is transposed at the border.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from types import ModuleType

import jax
import jax.numpy as jnp

from ..problem import problem
from ..spec import ConvSpec
from . import dense, depthwise
from .activation import through_slope
from .mode import Mode

FAMILIES: dict[str, ModuleType] = {"dense": dense, "depthwise": depthwise}
Config = dense.Config | depthwise.Config
Arrays = tuple[jax.Array | None, ...]


def configs(spec: ConvSpec) -> list[Config]:
    """Of all families that serve `spec`, XLA's own lowering first."""
    return [c for family in FAMILIES.values() if not family.unsupported(spec) for c in family.configs(spec)]


def lowered(
    config: Config,
    spec: ConvSpec,
    save: bool = False,
    mode: Mode = Mode(),  # noqa: B008  # frozen
) -> Callable[..., Arrays]:
    """What kernels/conv/native.py: run does, as a function of arrays, to be compiled by jax.jit."""
    family = next(module for module in FAMILIES.values() if isinstance(config, module.Config))
    p = problem(spec)

    def fprop(input: jax.Array, weight: jax.Array, bias: jax.Array | None = None) -> Arrays:
        if not prod(spec.output):
            return nothing(spec.output, input), nothing(spec.output, input) if save else None
        return family.convolve(config, spec, p, input, weight, bias, save, mode)

    def dgrad(grad_output: jax.Array, weight: jax.Array, saved: jax.Array | None = None) -> Arrays:
        if not prod(spec.input):
            return (nothing(spec.input, grad_output),)
        gradient = through_slope(grad_output, saved, spec.activation)
        return family.convolve(config, spec, p, gradient, weight, None, False, mode)[:1]

    def wgrad(grad_output: jax.Array, input: jax.Array, saved: jax.Array | None = None) -> Arrays:
        gradient = through_slope(grad_output, saved, spec.activation)
        image, result = (gradient, input) if spec.transposed else (input, gradient)
        if prod(image.shape) and prod(result.shape):
            weight = family.correlate(config, spec, p, image, result, mode)
        else:
            weight = nothing(spec.weight, input)
        return weight, _of_bias(gradient) if spec.bias else None

    def nothing(shape: tuple[int, ...], like: jax.Array) -> jax.Array:
        return jnp.zeros(in_memory(spec, shape), like.dtype)

    def _of_bias(gradient: jax.Array) -> jax.Array:
        channels = gradient.ndim - 1 if p.channels_last else 1
        pixels = [axis for axis in range(gradient.ndim) if axis != channels]
        return gradient.sum(pixels, dtype=jnp.float32).astype(gradient.dtype)

    return {"fprop": fprop, "dgrad": dgrad, "wgrad": wgrad}[spec.direction]


def in_memory(spec: ConvSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A torch shape of more than one dimension as the array has it."""
    return (shape[0], *shape[2:], shape[1]) if spec.memory_format == "channels_last" and len(shape) > 1 else shape


def operands(spec: ConvSpec) -> tuple[jax.ShapeDtypeStruct | None, ...]:
    """Shapes and dtypes of the arrays that a lowered function takes."""

    def of(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(in_memory(spec, shape), jnp.dtype(spec.dtype))

    if spec.direction == "fprop":
        return of(spec.input), of(spec.weight), of((spec.out_channels,)) if spec.bias else None
    second = spec.weight if spec.direction == "dgrad" else spec.input
    return of(spec.output), of(second), None if spec.activation == "none" else of(spec.output)
