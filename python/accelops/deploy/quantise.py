"""A layer in int8, and how its exact sums become int8 again.

Weights are symmetric per output channel, activations symmetric per tensor. With x = s_x * X and w = s_w * W the engine's
sums are exact integers of scale s_x * s_w, and the result in scale s_y is (sum + bias) * s_x * s_w / s_y. That factor is
a multiplier of 31 bits over a power of two (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 2.2), rounded half up, as hls/conv/int8.hpp says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .graph import Layer
from .ranges import LARGEST

SMALLEST = -128
BIAS_LIMIT = 1 << 30  # of a bias in the scale of the sums, so that sum + bias stays far from overflow
SUM_LIMIT = 1 << 31
SHIFTS = range(-30, 32)  # the engine shifts by 31 + shift bits, and adds half of that first


@dataclass(frozen=True, eq=False)
class Quantised:
    """`layer` in integers: `weight` int8 (K, C / groups, R, S); `bias`, `multiplier` and `shift` int32 (K,).
    `sum_scale` float64 (K,): the value of one in the sums. `scale`: of the int8 result; None where the sums stay raw,
    because the host takes them as they are, and adds the bias. `lowest`: where results end below."""

    layer: Layer
    source_scale: float
    scale: float | None
    weight: Tensor
    sum_scale: Tensor
    bias: Tensor
    multiplier: Tensor
    shift: Tensor
    lowest: int

    @property
    def raw(self) -> bool:
        return self.scale is None

    @property
    def name(self) -> str:
        return self.layer.name

    def sizes(self, n: int, h: int, w: int) -> tuple[int, int, int, int]:
        """Of the result (N, K, P, Q) for n images of h x w."""
        layer = self.layer
        p, q = (
            (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, stride, padding, dilation in zip(
                (h, w), layer.weight.shape[2:], layer.stride, layer.padding, layer.dilation, strict=True
            )
        )
        return n, len(layer.weight), p, q

    def real(self, result: Tensor) -> Tensor:
        """What integers of its result (N, K, P, Q) stand for, in fp32."""
        if self.scale is not None:
            return (result.double() * self.scale).float()
        bias, scale = (per_channel.view(1, -1, 1, 1) for per_channel in (self.bias, self.sum_scale))
        return ((result.double() + bias) * scale).float()


def quantised(layer: Layer, source_scale: float, scale: float | None) -> Quantised:
    weight = layer.weight.double()
    largest = weight.abs().flatten(1).amax(1)
    # A bias far above its channel's weights takes a coarser scale, so that it fits.
    for_bias = layer.bias.double().abs() / (source_scale * BIAS_LIMIT)
    weight_scale = torch.maximum(largest / LARGEST, for_bias)
    weight_scale = torch.where(weight_scale > 0, weight_scale, torch.ones_like(weight_scale))
    integers = (weight / weight_scale.view(-1, 1, 1, 1)).round()
    sum_scale = weight_scale * source_scale
    pairs = [(0, 0) if scale is None else fixed_point(float(s) / scale) for s in sum_scale]
    multiplier, shift = (torch.tensor(column, dtype=torch.int32) for column in zip(*pairs, strict=True))
    bias = (layer.bias.double() / sum_scale).round().to(torch.int32)
    lowest = 0 if layer.relu else SMALLEST
    return Quantised(layer, source_scale, scale, integers.to(torch.int8), sum_scale, bias, multiplier, shift, lowest)


def fixed_point(factor: float) -> tuple[int, int]:
    """(multiplier, shift) with multiplier / 2**(31 + shift) nearest to `factor` > 0 and 0 <= multiplier < 2**31. Below
    2**-32 the multiplier has fewer bits: there even the largest sum comes to less than a half. Raises ValueError for a
    factor above 2**30, which no pair of scales of real layers makes."""
    mantissa, exponent = math.frexp(factor)  # 0.5 <= mantissa < 1
    shift = min(-exponent, SHIFTS[-1])
    if shift < SHIFTS[0]:
        raise ValueError(f"a factor of {factor} between the scales of a layer: the results' range is next to nothing")
    multiplier = round(math.ldexp(mantissa, 31 + exponent + shift))
    if multiplier == 1 << 31:
        return (1 << 30, shift - 1) if shift > SHIFTS[0] else ((1 << 31) - 1, shift)
    return multiplier, shift


def too_long(layer: Layer) -> str | None:
    """Why a sum of the layer might not fit 32 bits."""
    taps = layer.weight[0].numel()
    if taps * LARGEST * -SMALLEST < SUM_LIMIT:
        return None
    return f"{taps} products of int8 may overflow a sum of 32 bits: the most is {SUM_LIMIT // (LARGEST * -SMALLEST)}"


def to_int8(values: Tensor, scale: float) -> Tensor:
    """Nearest integers, ends included. Raises ValueError where a value is not finite."""
    if not bool(values.isfinite().all()):
        raise ValueError(
            "a value that is not finite has no int8: the model's input, or what the host computed, has NaN or inf"
        )
    return (values.double() / scale).round().clamp(SMALLEST, LARGEST).to(torch.int8)
