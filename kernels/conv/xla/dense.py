"""Convolution by XLA's own operator, in every direction, with fp32 sums: all specs but for fp64 and complex numbers.

gather, scatter and wgrad (kernels/conv/problem.py) are each one lax.conv_general_dilated: a scatter reads its source with
zeros between the pixels, a wgrad takes channels for batches. XLA makes of them what it makes of torch's own convolution, so
there is nothing to win where a filter sees all channels. Where it sees few, in a grouped convolution, a TPU's matrix unit
runs mostly empty; `merge` fills it: so many groups become one, with zeros where a filter does not look.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ..problem import Problem
from ..spec import ConvSpec
from .activation import activated
from .mode import Mode

LANES = 128  # of a TPU's matrix unit, by which XLA tiles channels


@dataclass(frozen=True)
class Config:
    """`merge` groups become one; 1 is XLA's own grouped convolution."""

    merge: int = 1


def unsupported(spec: ConvSpec) -> list[str]:
    return []


def configs(spec: ConvSpec) -> list[Config]:
    """XLA's own first; then blocks that fill the lanes, and one block of all channels."""
    if spec.groups == 1 or spec.depthwise:
        return [Config()]
    each = max(1, max(spec.input[1], spec.out_channels) // spec.groups)
    merges = {_divisor(spec.groups, LANES // each), spec.groups} - {1}
    return [Config(), *(Config(merge) for merge in sorted(merges))]


def _divisor(groups: int, most: int) -> int:
    return max(m for m in range(1, groups + 1) if groups % m == 0 and m <= max(1, most))


def convolve(
    config: Config,
    spec: ConvSpec,
    p: Problem,
    source: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    save: bool,
    mode: Mode,
) -> tuple[jax.Array, jax.Array | None]:
    """(result, what is before its activation where `save` asks for it) of a gather or a scatter."""

    def both(merge: int) -> tuple[jax.Array, jax.Array]:
        exact = _convolved(spec, p, source, weight, merge, mode)
        if bias is not None:
            exact = exact + bias.astype(jnp.float32).reshape((-1,) if p.channels_last else (-1,) + (1,) * spec.ndim)
        return activated(exact, spec.activation if p.forward else "none").astype(source.dtype), exact.astype(
            source.dtype
        )

    result, before = both(config.merge)
    if config.merge > 1:
        # 0 times infinity is NaN: what is not finite would spread from its group to all of a block.
        finite = jnp.isfinite(before).all()
        result, before = lax.cond(finite, lambda: (result, before), lambda: both(1))
    return result, before if save else None


def _convolved(spec: ConvSpec, p: Problem, source: jax.Array, weight: jax.Array, merge: int, mode: Mode) -> jax.Array:
    n, filters = spec.ndim, "OI"
    strides, spread, pads = p.stride[-n:], (1,) * n, [(x, x) for x in p.padding[-n:]]
    if p.kind == "scatter":
        strides, spread, pads = (1,) * n, strides, [_around(p, i) for i in range(3 - n, 3)]
        weight = lax.rev(weight, range(1, 1 + n) if p.channels_last else range(2, 2 + n))
        if spec.groups == 1:
            filters = "IO"
        else:
            weight = _exchanged(weight, spec.groups, -1 if p.channels_last else 1)
    if merge > 1:
        weight = _merged(weight, spec.groups, merge, -1 if p.channels_last else 1)
    return lax.conv_general_dilated(
        source,
        weight,
        strides,
        pads,
        spread,
        p.dilation[-n:],
        (_layout("NC", spec), _layout(filters, spec), _layout("NC", spec)),
        feature_group_count=spec.groups // merge,
        precision=mode.precision,
        preferred_element_type=jnp.float32,
    )


def correlate(
    config: Config,
    spec: ConvSpec,
    p: Problem,
    image: jax.Array,
    result: jax.Array,
    mode: Mode,
) -> jax.Array:
    """The gradient of the weight, in the dtype of the operands."""
    channels, groups = -1 if p.channels_last else 1, spec.groups // config.merge
    exact = _correlated(spec, p, image, result, mode, batch_group_count=groups)
    if groups > 1:
        # XLA may compute groups of batches as if they were one, and zeros with what is not finite are not zero.
        finite, alone = jnp.isfinite(exact).all(), partial(_correlated, spec, p, result=result, mode=mode)
        exact = lax.cond(
            finite,
            lambda: exact,
            lambda: alone(image=_groups_first(image, groups, channels), feature_group_count=groups),
        )
    if config.merge > 1:
        exact = _own_blocks(exact, spec.groups, config.merge, channels)
    return exact.astype(image.dtype)


def _correlated(
    spec: ConvSpec, p: Problem, image: jax.Array, result: jax.Array, mode: Mode, **groups: int
) -> jax.Array:
    n = spec.ndim
    return lax.conv_general_dilated(
        image,
        result,
        p.dilation[-n:],
        [_to_each_tap(p, i) for i in range(3 - n, 3)],
        None,
        p.stride[-n:],
        (_layout("CN", spec), _layout("IO", spec), _layout("CN", spec)),
        precision=mode.precision,
        preferred_element_type=jnp.float32,
        **groups,
    )


def _groups_first(image: jax.Array, groups: int, channels: int) -> jax.Array:
    """(N, g C', ...) as (g N, C', ...): groups of channels as wgrad sees them, which takes images for channels."""
    last = jnp.moveaxis(image, channels, -1)
    split = jnp.moveaxis(last.reshape(*last.shape[:-1], groups, -1), -2, 0)
    return jnp.moveaxis(split.reshape(-1, *split.shape[2:]), -1, channels)


def _layout(two: str, spec: ConvSpec) -> str:
    """Of an array whose first axis and whose channels are named by `two`, as lax writes it."""
    spatial = "DHW"[-spec.ndim :]
    return two[0] + spatial + two[1] if spec.memory_format == "channels_last" else two + spatial


def _around(p: Problem, i: int) -> tuple[int, int]:
    """How far the spread source of a scatter must be padded, or cut where negative, for the image to result."""
    low = p.dilation[i] * (p.taps[i] - 1) - p.padding[i]
    return low, p.image[i] + p.padding[i] - 1 - (p.result[i] - 1) * p.stride[i]


def _to_each_tap(p: Problem, i: int) -> tuple[int, int]:
    """How far the image of a wgrad must be padded, or cut, for as many results as there are taps."""
    reach = p.dilation[i] * (p.taps[i] - 1) + (p.result[i] - 1) * p.stride[i] + 1
    return p.padding[i], reach - p.image[i] - p.padding[i]


def _exchanged(weight: jax.Array, groups: int, inputs: int) -> jax.Array:
    """(g K', C') to (g C', K'): filters of the way back. C' lies on the axis `inputs`."""
    split = weight.reshape(groups, -1, *weight.shape[1:])
    turned = jnp.swapaxes(split, 1, inputs if inputs < 0 else inputs + 1)
    return turned.reshape(-1, *turned.shape[2:])


def _merged(weight: jax.Array, groups: int, merge: int, inputs: int) -> jax.Array:
    """Filters (g K', C') as (g K', merge C'), with zeros for the channels of other groups. Repeated and masked by counters,
    XLA makes it in one pass; as a product with a diagonal of blocks it cost as much as the convolution at 1024 channels."""
    axis = inputs % weight.ndim
    wide = jnp.concatenate([weight] * merge, axis)
    of_filter = lax.broadcasted_iota(jnp.int32, wide.shape, 0) // (weight.shape[0] // groups) % merge
    of_channel = lax.broadcasted_iota(jnp.int32, wide.shape, axis) // weight.shape[axis]
    return jnp.where(of_filter == of_channel, wide, jnp.zeros_like(wide))


def _own_blocks(wide: jax.Array, groups: int, merge: int, inputs: int) -> jax.Array:
    """The inverse of `_merged`."""
    wide = jnp.moveaxis(wide, inputs, 1)
    taps = wide.shape[2:]
    split = wide.reshape(groups // merge, merge, wide.shape[0] // groups, merge, -1, *taps)
    own = jnp.eye(merge, dtype=bool).reshape(1, merge, 1, merge, 1, *(1,) * len(taps))
    blocks = jnp.where(own, split, 0).sum(3)
    return jnp.moveaxis(blocks.reshape(wide.shape[0], -1, *taps), 1, inputs)
