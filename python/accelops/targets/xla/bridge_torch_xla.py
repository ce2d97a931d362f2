"""Programs in JAX on tensors of torch_xla: jax.export writes one for the platform that torch_xla runs on, and it becomes a
computation in torch_xla's own graph, lazy like every op there, compiled and fused with what is around it.

By way of jax.export, not of a lowering of the day: its form of a Pallas kernel is one that older TPU runtimes read too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import torch_xla
import torch_xla.backends
from jax import export
from jax._src.lib import _jax
from torch import Tensor
from torch_xla import runtime
from torch_xla._internal import tpu
from torch_xla.core import xla_builder

from .failure import as_kernel_failed

torch_xla._XLAC._init_computation_client()  # takes the device before jax can
if not os.environ.get("JAX_PLATFORMS"):
    jax.config.update("jax_platforms", "cpu")  # jax only writes programs here; the device is torch_xla's


@cache
def emulated() -> bool:
    """Whether torch_xla runs on something else than a TPU, as with PJRT_DEVICE=CPU."""
    return runtime.device_type() != "TPU"


def kind() -> str:
    """What torch_xla calls the TPU, "v5litepod" for a v5e."""
    return "" if emulated() else tpu.get_tpu_type()


def precision() -> str | None:
    """What torch_xla's own products have (torch_xla.backends.set_mat_mul_precision)."""
    told = torch_xla.backends.get_mat_mul_precision()
    return None if told == "default" else told


def program(function: Callable[..., Any]) -> Callable[..., Any]:
    """See accelops.targets.xla.program."""
    known: dict[Any, tuple[Callable[..., Any], Any]] = {}

    def run(*operands: Any) -> Any:
        tensors, tree = jax.tree.flatten(operands)
        key = tree, tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        found = known.get(key)
        if found is None:
            with as_kernel_failed(function):
                found = known[key] = _computation(function, tensors, tree)
        computed, results = found
        return results.unflatten(computed([tensor.detach() for tensor in tensors]))

    return run


def _computation(function: Callable[..., Any], tensors: list[Tensor], tree: Any) -> tuple[Callable[..., Any], Any]:
    """(a call of the computation on a list of tensors, the tree of its results)."""

    def flat(*leaves: jax.Array) -> Any:
        return function(*tree.unflatten(leaves))

    shapes = [jax.ShapeDtypeStruct(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in tensors]
    exported = export.export(
        jax.jit(flat, keep_unused=True),
        platforms=("cpu" if emulated() else "tpu",),
        disabled_checks=[export.DisabledSafetyCheck.custom_call("tpu_custom_call")],
    )(*shapes)
    computation = _jax.mlir.mlir_module_to_xla_computation(
        exported.mlir_module(), use_tuple_args=False, return_tuple=True
    )
    proto = xla_builder.computation_from_module_proto("accelops", computation.as_serialized_hlo_module_proto())
    return xla_builder.xla_computation_as_func(proto, "accelops"), exported.out_tree
