"""Runs the C++ convolutions (kernels/conv/reference.cpp and cpu/) on torch tensors: the `run` of both implementations.

Operands are dense in spec.memory_format, on the CPU, of spec.dtype; dispatch sees to that.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from accelops import _native

from .spec import ConvSpec
from .tensors import empty


@lru_cache(maxsize=4096)
def plan(spec: ConvSpec, family: str, tiles: tuple[int, ...] = ()) -> _native.ConvPlan:
    """The native kernel `family` bound to `spec`."""
    return _native.ConvPlan(spec, family, list(tiles))


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def run(
    plan: _native.ConvPlan,
    spec: ConvSpec,
    first: torch.Tensor,
    second: torch.Tensor,
    third: torch.Tensor | None = None,
    save: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None] | torch.Tensor:
    """Run one direction.

    fprop (input, weight, bias, save) -> (output, saved): `saved` is the value before the activation where `save` asks
    for it, else None. dgrad (grad_output, weight, saved) -> grad_input. wgrad (grad_output, input, saved) ->
    (grad_weight, grad_bias or None). In the backward, `saved` is the forward's output for ReLU and the value before the
    activation for SiLU and GELU.
    """
    threads = torch.get_num_threads()
    if spec.direction == "fprop":
        output = empty(spec, spec.output)
        saved = empty(spec, spec.output) if save else None
        plan.fprop(_address(first), _address(second), _address(third), output.data_ptr(), _address(saved), threads)
        return output, saved
    if spec.direction == "dgrad":
        grad_input = empty(spec, spec.input)
        plan.dgrad(_address(first), _address(second), _address(third), grad_input.data_ptr(), threads)
        return grad_input
    grad_weight = empty(spec, spec.weight)
    grad_bias = first.new_empty(spec.out_channels) if spec.bias else None
    plan.wgrad(_address(first), _address(second), _address(third), grad_weight.data_ptr(), _address(grad_bias), threads)
    return grad_weight, grad_bias
