"""Programs in JAX on torch's CPU tensors, by jax on the CPU: for tests, and for machines without a TPU.

Memory is shared both ways by DLPack where jax takes it, and is done with when a call returns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch import Tensor

from .failure import as_kernel_failed

if not os.environ.get("JAX_PLATFORMS"):
    # With libtpu installed and no TPU, jax would look for one, for minutes.
    jax.config.update("jax_platforms", "cpu")


def emulated() -> bool:
    return True


def kind() -> str:
    return ""


def precision() -> str | None:
    """A CPU has one precision of fp32."""
    return None


def program(function: Callable[..., Any]) -> Callable[..., Any]:
    """See accelops.targets.xla.program."""
    known: dict[Any, Callable[..., Any]] = {}
    jitted = jax.jit(function)

    def run(*operands: Any) -> Any:
        arrays = jax.tree.map(_array, operands)
        leaves, tree = jax.tree.flatten(arrays)
        key = tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        compiled = known.get(key)
        if compiled is None:
            with as_kernel_failed(function):
                compiled = known[key] = jitted.lower(*arrays).compile()
        return jax.tree.map(_tensor, jax.block_until_ready(compiled(*arrays)))

    return run


def _array(tensor: Tensor) -> jax.Array:
    tensor = tensor.detach()
    if not tensor.numel():
        return jnp.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))
    return jax.dlpack.from_dlpack(tensor.contiguous())


def _tensor(array: jax.Array) -> Tensor:
    if not array.size:
        return torch.empty(array.shape, dtype=getattr(torch, array.dtype.name))
    return torch.from_dlpack(array)
