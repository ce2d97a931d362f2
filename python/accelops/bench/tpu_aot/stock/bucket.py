"""Bucketing as torch does it: DDP copies the gradients into a flat buffer, all-reduces it and copies them back."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from accelops.kernels.bucket.spec import BucketSpec

from ..launch import Launch


def launches(spec: BucketSpec, mesh: Mesh, shapes: Sequence[Sequence[int]] | None = None) -> tuple[Launch]:
    """pack: tensors into a flat buffer; unpack: the way back; reduce: the gradients of each device of `mesh`, through a
    flat buffer, into their sums. `shapes` of the tensors; without, they are flat and equal."""
    sizes = shapes if shapes is not None else [(spec.numel // max(1, spec.tensors),)] * spec.tensors
    tensors = [jax.ShapeDtypeStruct(tuple(size), jnp.dtype(spec.dtype)) for size in sizes]
    wire = jnp.dtype(spec.wire_dtype)
    flat = jax.ShapeDtypeStruct((sum(map(prod, sizes)),), wire)

    def pack(tensors: list[jax.Array]) -> jax.Array:
        return jnp.concatenate([tensor.reshape(-1).astype(wire) for tensor in tensors])

    def unpack(flat: jax.Array) -> list[jax.Array]:
        ends = [sum(map(prod, sizes[: i + 1])) for i in range(len(sizes))]
        pieces = [flat[end - prod(size) : end].reshape(size) for end, size in zip(ends, map(tuple, sizes), strict=True)]
        return [piece.astype(jnp.dtype(spec.dtype)) for piece in pieces]

    def reduce(tensors: list[jax.Array]) -> list[jax.Array]:
        return unpack(lax.psum(pack(tensors), mesh.axis_names[0]))

    everywhere = PartitionSpec()
    reduced = jax.shard_map(reduce, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
    by_direction = {"pack": (pack, tensors), "unpack": (unpack, flat), "reduce": (reduced, tensors)}
    function, argument = by_direction[spec.direction]
    return (Launch(function, (argument,), donate=(0,) if spec.direction == "reduce" else ()),)
