"""torch_tpu without a TPU: our ops are registered for its device, and libtpu compiles what torch_tpu would hand to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch

if find_spec("torch_tpu") is None or find_spec("libtpu") is None:
    pytest.skip("torch_tpu and libtpu are not installed", allow_module_level=True)

# libtpu asks the machine what it is, for minutes where it is none of Google's.
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-4"}
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from jax._src.lib import xla_client
from jax.experimental import topologies

import accelops
from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.adam.xla import lowering as adam
from accelops.kernels.bucket.spec import BucketSpec
from accelops.kernels.bucket.xla import lowering as bucket
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.kernels.conv.xla import lowering as conv
from accelops.targets import xla
from accelops.targets.xla import bridge_torch_tpu

SPEC = ConvSpec(
    "fprop", (2, 16, 9, 10), (16, 1, 3, 3), (1, 1), (1, 1), (1, 1), groups=16, dtype="bfloat16", device="tpu"
)
SPECS = {
    "depthwise": SPEC,
    "grouped": replace(SPEC, groups=4, weight=(16, 4, 3, 3), bias=True, activation="gelu"),
    "dense": replace(SPEC, groups=1, weight=(8, 16, 3, 3), stride=(2, 2), dtype="float32"),
}


def compiled(function: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
    """By libtpu for a v5e, from the very module that torch_tpu registers."""
    leaves, tree = jax.tree.flatten(operands)
    tensors = [torch.empty(x.shape, dtype=getattr(torch, x.dtype.name), device="meta") for x in leaves]
    kernel = bridge_torch_tpu.kernel(function, tree)
    arrays, names = kernel._get_jax_placeholders(*kernel._normalize_invocation_args(tensors, {}))
    exported = kernel.exported(*arrays, **names)
    assert exported.platforms == ("tpu",)
    device = topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[0]
    options = xla_client.CompileOptions()
    options.num_replicas = options.num_partitions = 1
    options.device_assignment = xla_client.DeviceAssignment.create(np.array([[device.id]]))
    with jax.interpreters.mlir.make_ir_context():
        module = jax.interpreters.mlir.ir.Module.parse(exported.mlir_module())
        return device.client.compile(module, xla_client.DeviceList((device,)), options)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", SPECS)
def test_libtpu_compiles_every_config_of_a_convolution(name: str, direction: str) -> None:
    spec = replace(SPECS[name], direction=direction)
    for config in conv.configs(spec):
        module = compiled(conv.lowered(config, spec), conv.operands(spec)).hlo_modules()[0].to_string()
        in_pallas = type(config).__module__.endswith("depthwise")
        assert ("tpu_custom_call" in module) == in_pallas, config


def test_libtpu_compiles_the_adam_step() -> None:
    spec = AdamSpec(5000, 3, "bfloat16", amsgrad=True, master=True, ema=True, stochastic=True, device="tpu")
    flags = adam.Flags(decay=True, amsgrad=True, guarded=True, stochastic=True)
    assert compiled(adam.lowered(flags), adam.operands(spec))


@pytest.mark.parametrize("direction", ["pack", "unpack", "reduce"])
def test_libtpu_compiles_bucketing(direction: str) -> None:
    spec = BucketSpec(direction, 5000, 3, "float32", "bfloat16", 4, direction == "pack", "tpu")
    assert compiled(bucket.lowered(spec, bucket.kinds_of(spec)), bucket.operands(spec))


@pytest.mark.parametrize("op", ["conv_forward", "conv_backward"])
def test_the_ops_are_registered_for_its_device(op: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"accelops::{op}", "PrivateUse1")


class Convolution(torch.nn.Module):
    def forward(self, input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.ops.accelops.conv_forward(
            input, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, "none", False, None
        )[0]


def test_their_fakes_know_shapes_that_change() -> None:
    batch = torch.export.Dim("batch")
    operands = torch.randn(5, 3, 8, 9), torch.randn(7, 3, 3, 3)
    exported = torch.export.export(Convolution(), operands, dynamic_shapes=({0: batch}, None))
    (output,) = exported.graph.find_nodes(op="output")[0].args[0]
    assert isinstance(output.meta["val"].shape[0], torch.SymInt) and output.meta["val"].shape[1:] == (7, 8, 9)


def test_without_a_tpu_jax_alone_serves() -> None:
    assert xla.way() == "torch_tpu" and xla.unavailable() is None
    assert xla.device() == "cpu" and xla.emulated()
    input, weight = torch.randn(2, 3, 8, 9), torch.randn(7, 3, 3, 3)
    got = accelops.functional.conv2d(input, weight, target="xla")
    torch.testing.assert_close(got, torch.nn.functional.conv2d(input, weight), rtol=1e-4, atol=1e-4)
