"""Random operands for a ConvSpec, as `run` takes them: for tuning and benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from .spec import ConvSpec
from .tensors import memory_format


def operands(spec: ConvSpec, seed: int = 0) -> tuple[Tensor | None, ...]:
    """fprop: (input, weight, bias or None); dgrad: (grad_output, weight, saved); wgrad: (grad_output, input, saved).
    Normally distributed, the weight scaled so that results are of order one, in the spec's memory format and device."""
    # On "meta" nothing is drawn: operands have a shape, and no values.
    generator = None if spec.device == "meta" else torch.Generator(spec.device).manual_seed(seed)
    form = memory_format(spec)

    def random(shape: tuple[int, ...]) -> Tensor:
        tensor = torch.randn(shape, generator=generator, device=spec.device).to(getattr(torch, spec.dtype))
        return tensor.contiguous(memory_format=form) if tensor.dim() > 1 else tensor

    fan_in = max(1, spec.weight[1] * torch.Size(spec.kernel).numel())
    weight = random(spec.weight) * fan_in**-0.5
    if spec.direction == "fprop":
        return random(spec.input), weight, random((spec.out_channels,)) if spec.bias else None
    saved = None if spec.activation == "none" else random(spec.output)
    return random(spec.output), weight if spec.direction == "dgrad" else random(spec.input), saved
