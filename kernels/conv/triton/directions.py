"""From a direction to one of a family's two launches: `convolve` writes pixels, `correlate` writes filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..problem import Problem
from ..spec import ConvSpec
from ..tensors import empty
from .bias import bias_gradient

# (source, weight, bias, saved, out, before): into `out`, and what is before the activation into `before`.
Convolve = Callable[[Tensor, Tensor, Tensor | None, Tensor | None, Tensor, Tensor | None], None]
# (image, result, saved, grad_weight, grad_bias)
Correlate = Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor | None], None]


def run(
    convolve: Convolve,
    correlate: Correlate,
    spec: ConvSpec,
    p: Problem,
    first: Tensor,
    second: Tensor,
    third: Tensor | None = None,
    save: bool = False,
) -> Any:
    """See kernels/conv/native.py: run. Neither is called where it would have nothing to write, or nothing to sum."""
    if spec.direction == "wgrad":
        return _filters(correlate, spec, p, first, second, third)
    forward = spec.direction == "fprop"
    out, before = empty(spec, spec.output if forward else spec.input), empty(spec, spec.output) if save else None
    bias, saved = (third, None) if forward else (None, third)
    if out.numel():
        convolve(first, second, bias, saved, out, before)
    return (out, before) if forward else out


def _filters(
    correlate: Correlate, spec: ConvSpec, p: Problem, grad_output: Tensor, input: Tensor, saved: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    image, result = (grad_output, input) if spec.transposed else (input, grad_output)
    grad_weight = empty(spec, spec.weight)
    grad_bias = grad_output.new_empty(spec.out_channels) if spec.bias and not spec.transposed else None
    if image.numel() and result.numel():
        correlate(image, result, saved, grad_weight, grad_bias)
    else:
        grad_weight.zero_()
        if grad_bias is not None:
            grad_bias.zero_()
    if spec.bias and spec.transposed:
        grad_bias = bias_gradient(spec, p, grad_output, saved)
    return grad_weight, grad_bias
