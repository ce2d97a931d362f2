"""ConvSpec: one convolution problem, in the names of cuDNN: N, C, K; input D H W, kernel T R S, output O P Q.

Shapes are those of the forward convolution whatever the direction. For a transposed convolution `weight` is
(C, K/groups, ...) as in torch, and the output is the larger side.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..spec import ITEMSIZE, Spec

DIRECTIONS = ("fprop", "dgrad", "wgrad")
ACTIVATIONS = ("none", "relu", "silu", "gelu")


@dataclass(frozen=True)
class ConvSpec(Spec):
    """`memory_format` is that of every operand and of the result ("contiguous" or "channels_last"); dispatch brings the
    operands into it before an implementation sees them, as torch does. `activation` follows the bias; GELU is the exact
    one (erf). `bias` says in fprop that one is added, in wgrad that its gradient is wanted too."""

    op = "conv"

    direction: str
    input: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = False
    activation: str = "none"
    dtype: str = "float32"
    memory_format: str = "contiguous"
    device: str = "cpu"

    @property
    def ndim(self) -> int:
        """Spatial dimensions: 1, 2 or 3."""
        return len(self.input) - 2

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.weight[2:]

    @property
    def out_channels(self) -> int:
        return self.weight[1] * self.groups if self.transposed else self.weight[0]

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of the forward result, (N, K, ...); torch.nn.Conv2d and ConvTranspose2d, section "Shape"."""
        spatial = []
        for i in range(self.ndim):
            reach = self.dilation[i] * (self.kernel[i] - 1)
            if self.transposed:
                size = (
                    (self.input[2 + i] - 1) * self.stride[i] - 2 * self.padding[i] + reach + self.output_padding[i] + 1
                )
            else:
                size = (self.input[2 + i] + 2 * self.padding[i] - reach - 1) // self.stride[i] + 1
            spatial.append(size)
        return (self.input[0], self.out_channels, *spatial)

    @property
    def depthwise(self) -> bool:
        """Every input channel has filters of its own: groups == C, and more than one."""
        return self.groups == self.input[1] and self.groups > 1

    @property
    def flops(self) -> int:
        # One multiply-add per (smaller-side pixel, tap, channel of the group); padding is not subtracted.
        pixels = prod(self.input if self.transposed else self.output)
        per_pixel = self.weight[1] * prod(self.kernel)
        return 2 * pixels * per_pixel

    @property
    def bytes(self) -> int:
        tensors = prod(self.input) + prod(self.weight) + prod(self.output) + (self.out_channels if self.bias else 0)
        return tensors * ITEMSIZE[self.dtype]
