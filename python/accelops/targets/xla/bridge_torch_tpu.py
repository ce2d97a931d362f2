"""Programs in JAX on tensors of torch_tpu, by its own interface for them: eager, one launch a call.

torch_tpu has no device but a TPU, so none of this has run on one; the tests have libtpu compile what it would be handed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import torch
from torch_tpu._internal.device import _device_ops_backend
from torch_tpu._internal.pallas import pallas

from .failure import as_kernel_failed


def emulated() -> bool:
    return False


def kind() -> str:
    """What the TPU calls itself, "TPU v5 lite" for a v5e."""
    return _device_ops_backend._get_local_device_attributes().get("device_kind", "")


def precision() -> str | None:
    """What torch was told of its own fp32 products (torch.set_float32_matmul_precision)."""
    return {"highest": "highest", "high": "high"}.get(torch.get_float32_matmul_precision())


def program(function: Callable[..., Any]) -> Callable[..., Any]:
    """See accelops.targets.xla.program."""
    known: dict[Any, Any] = {}
    compiled: set[Any] = set()

    def run(*operands: Any) -> Any:
        tensors, tree = jax.tree.flatten(operands)
        given = [tensor.detach() for tensor in tensors]
        key = tree, tuple((tensor.shape, tensor.dtype) for tensor in given)
        if key in compiled:
            return known[tree](*given)
        with as_kernel_failed(function):
            if tree not in known:
                known[tree] = kernel(function, tree)
            results = known[tree](*given)
        compiled.add(key)
        return results

    return run


def kernel(function: Callable[..., Any], tree: Any) -> pallas.JaxCallable:
    """`function` of operands of one tree, as torch_tpu calls it: with their tensors one by one. It compiles anew for other
    shapes and dtypes by itself."""

    def flat(*leaves: jax.Array) -> Any:
        return function(*tree.unflatten(leaves))

    return pallas.custom_jax_kernel(flat, "accelops", warn_deprecated=False)
