"""All-reduce across eight devices, which jax makes of one CPU in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("jax")


def test_eight_devices_agree_with_fp64() -> None:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


EIGHT = """
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec
from accelops.kernels.bucket.xla.lowering import all_reduce, ordered_all_reduce

mesh = Mesh(np.array(jax.devices()), ("ranks",))
random = np.random.default_rng()
shapes = [(3, 5), (), (0,), (77,), (4, 1, 2)]
values = [random.standard_normal((8, *shape)) for shape in shapes]

def compiled(function, dtype):
    given = [jnp.asarray(v, dtype) for v in values]
    own = lambda xs: function([x[0] for x in xs], "ranks")
    mapped = jax.shard_map(own, mesh=mesh, in_specs=PartitionSpec("ranks"), out_specs=PartitionSpec(), check_vma=False)
    ready = jax.jit(mapped).lower(given).compile()
    return ready.as_text(), ready(given), given

def check(got, given, scale, bound):
    for mine, each in zip(got, given, strict=True):
        exact = np.asarray(each, np.float64).sum(0) * scale
        assert mine.shape == exact.shape and mine.dtype == each.dtype
        off = np.abs(np.asarray(mine, np.float64) - exact).max(initial=0)
        assert off <= bound * np.abs(exact).max(initial=0), (off, bound)

text, got, given = compiled(partial(all_reduce, scale=1 / 8), jnp.float32)
check(got, given, 1 / 8, 4e-7 * 8)
assert text.count(" all-reduce(") == 1 and "concatenate(" not in text, text

text, got, given = compiled(partial(all_reduce, scale=0.5, wire="bfloat16"), jnp.float32)
check(got, given, 0.5, 8 * 2**-8)

for wire, eps in (("bfloat16", 2**-8), ("float16", 2**-11), ("float32", 2**-24)):
    text, got, given = compiled(partial(ordered_all_reduce, scale=1 / 8, wire=wire), jnp.float32)
    check(got, given, 1 / 8, 8 * eps)
    again = compiled(partial(ordered_all_reduce, scale=1 / 8, wire=wire), jnp.float32)[1]
    assert all(np.array_equal(a, b) for a, b in zip(got, again))

# Sums of a 16-bit wire are made in fp32, in the order of the ranks: 256 + 1 is 256 in bf16, seven times over.
values = [np.array([[256.0]] + [[1.0]] * 7)]
_, got, _ = compiled(partial(ordered_all_reduce, wire="bfloat16"), jnp.float32)
assert float(got[0][0]) == float(jnp.bfloat16(263.0)), got
"""
