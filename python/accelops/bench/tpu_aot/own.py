"""What libtpu is handed for accelops' own implementations: the functions of kernels/<op>/xla, as the bridges hand them over.

One builder an op, for a Config as accelops.dispatch.tuned.describe writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from accelops.dispatch.tuned import describe
from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.adam.xla import lowering as adam_lowering
from accelops.kernels.bucket.spec import BucketSpec
from accelops.kernels.bucket.xla import lowering as bucket_lowering
from accelops.kernels.conv.spec import ConvSpec
from accelops.kernels.conv.xla import lowering as conv_lowering

from .launch import Launch

# XLA merges all-reduces up to a size, and counts 1x1 filters with their padding: of ResNet-50's gradients it made four. On a
# machine with TPUs, where another compiles, the same is LIBTPU_INIT_ARGS=--xla_jf_crs_combiner_threshold_in_bytes=1073741824.
ONE_MESSAGE = (("xla_jf_crs_combiner_threshold_in_bytes", str(2**30)),)

Shapes = Sequence[Sequence[int]] | None


def conv(spec: ConvSpec, mesh: Mesh, config: dict[str, Any]) -> tuple[Launch]:
    found = next(c for c in conv_lowering.configs(spec) if describe(c) == config)
    return (Launch(conv_lowering.lowered(found, spec), conv_lowering.operands(spec)),)


def adam(spec: AdamSpec, mesh: Mesh, config: dict[str, Any], shapes: Shapes = None) -> tuple[Launch]:
    """Parameters, moments and counts of steps lend their memory."""
    flags = adam_lowering.Flags(amsgrad=spec.amsgrad, stochastic=spec.stochastic)
    state, grads, numbers = adam_lowering.operands(spec)
    columns = {name: column for name, column in state._asdict().items() if name != "state_steps"}
    state = state._replace(**{name: _shaped(column, shapes) for name, column in columns.items()})
    return (Launch(adam_lowering.lowered(flags), (state, _shaped(grads, shapes), numbers), donate=(0,)),)


def bucket(spec: BucketSpec, mesh: Mesh, config: dict[str, Any], shapes: Shapes = None) -> tuple[Launch]:
    """reduce is the all-reduce of the tensors of each device of `mesh`."""
    if spec.direction != "reduce":
        function = bucket_lowering.lowered(spec, bucket_lowering.kinds_of(spec))
        return (Launch(function, bucket_lowering.operands(spec)),)
    tensors = [jax.ShapeDtypeStruct((n,), jnp.dtype(d)) for n, d in bucket_lowering.kinds_of(spec)]
    wire = None if spec.wire_dtype == spec.dtype else spec.wire_dtype
    reduce = partial(bucket_lowering.all_reduce, axis=mesh.axis_names[0], wire=wire)
    everywhere = PartitionSpec()
    reduced = jax.shard_map(reduce, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
    return (Launch(reduced, (_shaped(tensors, shapes),), donate=(0,), options=ONE_MESSAGE),)


def _shaped(column: Sequence[jax.ShapeDtypeStruct], shapes: Shapes) -> list[jax.ShapeDtypeStruct]:
    """The same dtypes in other shapes, where there are any."""
    if shapes is None:
        return list(column)
    return [jax.ShapeDtypeStruct(tuple(s), leaf.dtype) for s, leaf in zip(shapes, column, strict=bool(column))]
