"""Convolution on an FPGA board, by the fp32 engine of hls/conv: 1D (as 2D of one row) and 2D, one launch a group.

Every direction is made of correlations (engine.py), as targets/fpga/gradients.py says: the way forward is one, with bias and
ReLU on the way out; the gradient of the large side one for each phase of the stride; the weights' gradient, with roles
exchanged, one for each part of the sum. The host adds up such parts, in a fixed order, and the bias gradient, in fp64, and
makes what the engine has no unit for: SiLU, GELU and the way back through an activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accelops.targets import fpga

from .. import aten
from ..spec import ConvSpec
from ..tensors import empty
from .directions import forward, large_gradient, weight_gradient
from .engine import Engine
from .problem import Problem


@dataclass(frozen=True)
class Config:
    """Nothing to choose: tiles and bands are those that are modelled to be fastest."""


def unsupported(spec: ConvSpec) -> list[str]:
    reasons = []
    if spec.device != "cpu":
        reasons.append(f"runs on cpu tensors, not on {spec.device}")
    if spec.dtype != "float32":
        reasons.append(f"dtype {spec.dtype}: the engine for training has float32 only")
    if spec.ndim == 3:
        reasons.append("3D: the engine walks over rows and columns of a plane")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    return [Config()]


def run(
    config: Config,
    spec: ConvSpec,
    first: Tensor,
    second: Tensor,
    third: Tensor | None = None,
    save: bool = False,
) -> Any:
    """See native.run."""
    problem = Problem.of(spec)
    with Engine(fpga.current()) as engine:
        if spec.direction == "fprop":
            fused = spec.activation == "relu" and not save
            output = empty(spec, spec.output)
            (large_gradient if spec.transposed else forward)(engine, problem, first, second, output, third, fused)
            if not fused and output.numel():  # torch's functions lose the memory format of what is empty
                return aten.activated(spec.activation, output, in_place=not save), output if save else None
            return output, output if save else None
        grad_output = aten.through_activation(spec.activation, first, third)
        if spec.direction == "dgrad":
            grad_input = empty(spec, spec.input)
            (forward if spec.transposed else large_gradient)(engine, problem, grad_output, second, grad_input)
            return grad_input
        grad_weight = empty(spec, spec.weight)
        sides = (second, grad_output) if spec.transposed else (grad_output, second)
        weight_gradient(engine, problem, *sides, grad_weight)
        return grad_weight, _bias_gradient(grad_output) if spec.bias else None


def _bias_gradient(grad_output: Tensor) -> Tensor:
    others = (0, *range(2, grad_output.dim()))
    return grad_output.sum(others, dtype=torch.float64).to(grad_output.dtype)
