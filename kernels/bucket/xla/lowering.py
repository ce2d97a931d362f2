"""Bucketing in JAX: pack, unpack and reduce on one device, and all-reduce across devices, inside jax.shard_map.

XLA merges the all-reduces of a list into one by itself, and an explicit flat buffer costs copies of all gradients; so
`all_reduce` takes the list as it is. `ordered_all_reduce` is for wires of 16 bits whose sums are to be made in fp32, and
for sums that are to be the same to the last bit on any network: every rank adds up one part of a flat buffer in the order
of the ranks, and all gather the parts (Thakur et al. 2005, "Optimization of Collective Communication Operations in MPICH",
section 4.5, with a direct exchange in the place of recursive halving).

Tensors are one-dimensional in pack and unpack, in the order of their memory; sums and products are in fp32, where XLA takes
a subnormal one for 0, on TPUs and on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..spec import MIXED, WIRE_DTYPES, BucketSpec

Scale = jax.Array | None
Kinds = tuple[tuple[int, str], ...]  # (elements, dtype) of each tensor of a list


def lowered(spec: BucketSpec, kinds: Kinds = ()) -> Callable[..., Any]:
    """pack(tensors, scale, residual or None) -> (flat, residual or None); unpack(flat, scale) -> tensors of `kinds`;
    reduce(flats, scale) -> out. `scale` is a 0-d fp32 array, or None for 1: no product then, which would cost those numbers
    that are subnormal in fp32."""

    def pack(tensors: Sequence[jax.Array], scale: Scale, residual: jax.Array | None = None) -> Any:
        return packed(tensors, scale, spec.wire_dtype, residual)

    def unpack(flat: jax.Array, scale: Scale) -> list[jax.Array]:
        return unpacked(flat, scale, kinds)

    def reduce(flats: Sequence[jax.Array], scale: Scale) -> jax.Array:
        return _scaled(summed(flats), scale, spec.dtype)

    return {"pack": pack, "unpack": unpack, "reduce": reduce}[spec.direction]


def packed(
    tensors: Sequence[jax.Array], scale: Scale, wire: str, residual: jax.Array | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """(the tensors times `scale`, one after the other, with what the last step lost; what is lost this time)."""
    if residual is None:
        return jnp.concatenate([_scaled(t, scale, wire) for t in tensors]), None
    exact = jnp.concatenate([_scaled(t, scale, "float32") for t in tensors]) + residual
    # XLA may drop a rounding that is taken back at once (xla_allow_excess_precision); what is lost would be 0 then.
    sent = lax.optimization_barrier(exact.astype(wire))
    lost = exact - sent.astype(jnp.float32)
    return sent, jnp.where(jnp.isfinite(sent), lost, 0.0)


def unpacked(flat: jax.Array, scale: Scale, kinds: Kinds) -> list[jax.Array]:
    """The inverse of `packed`, without what was lost."""
    tensors, begin = [], 0
    for numel, dtype in kinds:
        part = lax.slice(flat, (begin,), (begin + numel,))
        tensors.append(_scaled(part, scale, dtype))
        begin += numel
    return tensors


def _scaled(values: jax.Array, scale: Scale, dtype: str) -> jax.Array:
    return values.astype(dtype) if scale is None else (values.astype(jnp.float32) * scale).astype(dtype)


def summed(flats: Sequence[jax.Array]) -> jax.Array:
    """In fp32, the first first."""
    total = flats[0].astype(jnp.float32)
    for flat in flats[1:]:
        total = total + flat.astype(jnp.float32)
    return total


def all_reduce(tensors: Sequence[jax.Array], axis: str, scale: float = 1.0, wire: str | None = None) -> list[jax.Array]:
    """The sums over a mesh axis times `scale`, each of its tensor's shape and dtype: one all-reduce, and no copy of a list
    that is of the wire's dtype already. With `wire` of 16 bits XLA sums in 16 bits too."""
    sums = lax.psum([t if wire is None else t.astype(wire) for t in tensors], axis)
    return [_scaled(s, _number(scale), t.dtype.name) for s, t in zip(sums, tensors, strict=True)]


def ordered_all_reduce(
    tensors: Sequence[jax.Array], axis: str, scale: float = 1.0, wire: str = "bfloat16"
) -> list[jax.Array]:
    """The same in two rounds of the wire's dtype, half as many bytes as fp32 takes, with sums in fp32 in the order of the
    ranks; what is sent is rounded twice."""
    ranks = lax.axis_size(axis)
    flat, _ = packed([t.reshape(-1) for t in tensors], None, wire)
    numel = flat.size
    parts = jnp.pad(flat, (0, -numel % ranks)).reshape(ranks, -1)
    mine = lax.all_to_all(parts, axis, 0, 0)  # row r: rank r's values of the part that this rank adds up
    total = _scaled(summed(list(mine)), _number(scale), wire)
    whole = lax.all_gather(total, axis, tiled=True)[:numel]
    kinds = tuple((t.size, t.dtype.name) for t in tensors)
    found = unpacked(whole, None, kinds)
    return [f.reshape(t.shape) for f, t in zip(found, tensors, strict=True)]


def _number(scale: float) -> Scale:
    return None if scale == 1.0 else jnp.float32(scale)


def operands(spec: BucketSpec) -> tuple[Any, ...]:
    """Shapes and dtypes of what a lowered function takes, for tensors of equal size (the last has the rest)."""
    scale = jax.ShapeDtypeStruct((), jnp.float32)
    flat = jax.ShapeDtypeStruct((spec.numel,), jnp.dtype(spec.wire_dtype))
    if spec.direction == "unpack":
        return flat, scale
    if spec.direction == "reduce":
        return [flat] * spec.ranks, scale
    tensors = [jax.ShapeDtypeStruct((n,), jnp.dtype(d)) for n, d in kinds_of(spec)]
    return tensors, scale, jax.ShapeDtypeStruct((spec.numel,), jnp.float32) if spec.error_feedback else None


def kinds_of(spec: BucketSpec) -> Kinds:
    """Of as many tensors as a spec has, all of equal size but the last."""
    count = max(1, spec.tensors)
    sizes = [spec.numel // count] * (count - 1)
    dtypes = WIRE_DTYPES if spec.dtype == MIXED else (spec.dtype,)
    return tuple((n, dtypes[i % len(dtypes)]) for i, n in enumerate([*sizes, spec.numel - sum(sizes)]))
