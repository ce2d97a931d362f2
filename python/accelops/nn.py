"""The convolution modules of torch.nn with a fused activation and a choice of target.

Each is a subclass of torch's, with its parameters, state dict and padding modes; `accelerate` is for models that exist.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from accelops import functional
from accelops.accelerated import Sequential, accelerate, report
from accelops.kernels.conv.spec import ACTIVATIONS

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Sequential", "accelerate", "report"]  # fmt: skip


class _Fused(nn.Module):
    """`activation` is applied to the result; `target` is as in accelops.functional. The other arguments are torch's."""

    def __init__(self, *arguments: Any, activation: str = "none", target: str | None = None, **options: Any) -> None:
        if activation not in ACTIVATIONS:
            name = type(self).__name__
            raise ValueError(f"{name}: activation={activation!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
        super().__init__(*arguments, **options)
        self.activation = activation
        self.target = target

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        shown += "" if self.activation == "none" else f", activation={self.activation}"
        return shown + ("" if self.target is None else f", target={self.target}")


class _Conv(_Fused):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        convolution = getattr(functional, f"conv{weight.dim() - 2}d")
        options = {"activation": self.activation, "target": self.target}
        return convolution(input, weight, bias, self.stride, padding, self.dilation, self.groups, **options)


class _ConvTranspose(_Fused):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`output_size` picks among the sizes that a stride leaves open, as in torch."""
        ndim = self.weight.dim() - 2
        arguments = (self.stride, self.padding, self.kernel_size, ndim, self.dilation)
        output_padding = self._output_padding(input, output_size, *arguments)
        convolution = getattr(functional, f"conv_transpose{ndim}d")
        arguments = (self.stride, self.padding, output_padding, self.groups, self.dilation)
        options = {"activation": self.activation, "target": self.target}
        return convolution(input, self.weight, self.bias, *arguments, **options)


class Conv1d(_Conv, nn.Conv1d):
    """torch.nn.Conv1d with `activation` and `target`. Shape: (N, C, W) -> (N, K, Q), or both without N."""


class Conv2d(_Conv, nn.Conv2d):
    """torch.nn.Conv2d with `activation` and `target`. Shape: (N, C, H, W) -> (N, K, P, Q), or both without N."""


class Conv3d(_Conv, nn.Conv3d):
    """torch.nn.Conv3d with `activation` and `target`. Shape: (N, C, D, H, W) -> (N, K, O, P, Q), or both without N."""


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """torch.nn.ConvTranspose1d with `activation` and `target`. Shape: (N, C, W) -> (N, K, Q), or both without N."""


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d with `activation` and `target`. Shape: (N, C, H, W) -> (N, K, P, Q), or without N."""


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """torch.nn.ConvTranspose3d with `activation` and `target`. Shape: (N, C, D, H, W) -> (N, K, O, P, Q), or without N."""
