"""The integer reference: what the board computes, in exact arithmetic on the host.

Sums are torch's convolution in fp64, exact because they stay below 2**53; then requantised as hls/conv/int8.hpp says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .packing import Form, Packed
from .program import Sizes
from .quantise import LARGEST, Quantised


def sums(layer: Quantised, x: Tensor) -> Tensor:
    """Of int8 images (N, C, H, W): int64 (N, K, P, Q)."""
    own = layer.layer
    arguments = (own.stride, own.padding, own.dilation, own.groups)
    return torch.nn.functional.conv2d(x.double(), layer.weight.double(), None, *arguments).long()


def requantised(layer: Quantised, sums: Tensor) -> Tensor:
    """(sum + bias) * multiplier / 2**(31 + shift), rounded half up, into [lowest, 127]: int8."""
    bias, multiplier, shift = (c.long().view(1, -1, 1, 1) for c in (layer.bias, layer.multiplier, layer.shift))
    half = torch.ones_like(shift) << (30 + shift)
    return (((sums + bias) * multiplier + half) >> (31 + shift)).clamp(layer.lowest, LARGEST).to(torch.int8)


class Reference:
    """An engine whose values are the images themselves."""

    def place(self, image: Tensor, form: Form) -> Tensor:
        return image

    def convolve(self, packed: Packed, x: Tensor, sizes: Sizes) -> Tensor:
        exact = sums(packed.layer, x)
        return exact.to(torch.int32) if packed.layer.raw else requantised(packed.layer, exact)

    def fetch(self, packed: Packed, y: Tensor, sizes: Sizes) -> Tensor:
        return y

    def free(self, value: Tensor) -> None:
        """Memory of the host frees itself."""
