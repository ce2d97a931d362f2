"""A convolution without its direction, as two sides with a kernel between them.

The large side is a convolution's input, or a transposed one's output; torch's weight is (small channels, large channels of a
group, taps) in both. So a transposed convolution is the large side's gradient, and its gradient the way forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from ..spec import ConvSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """N images; channels of one of the `groups` on the large (C) and on the small side (K); rows and columns of each."""

    N: int
    groups: int
    C: int
    K: int
    large: tuple[int, int]
    small: tuple[int, int]
    taps: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, spec: ConvSpec) -> Problem:
        small, large = (spec.input, spec.output) if spec.transposed else (spec.output, spec.input)
        return cls(
            spec.input[0],
            spec.groups,
            large[1] // spec.groups,
            small[1] // spec.groups,
            _plane(large[2:], 1),
            _plane(small[2:], 1),
            _plane(spec.kernel, 1),
            _plane(spec.stride, 1),
            _plane(spec.padding, 0),
            _plane(spec.dilation, 1),
        )

    def side(self, tensor: Tensor) -> Tensor:
        """A view of the tensor of a side: (N, groups, channels, rows, columns)."""
        plane = tensor if tensor.dim() == 4 else tensor.unsqueeze(2)
        return plane.unflatten(1, (self.groups, plane.shape[1] // self.groups))

    def weight(self, tensor: Tensor) -> Tensor:
        """A view of the weight: (groups, K, C, R, S)."""
        plane = tensor if tensor.dim() == 4 else tensor.unsqueeze(2)
        return plane.unflatten(0, (self.groups, self.K))


def _plane(values: tuple[int, ...], one_row: int) -> tuple[int, int]:
    """A 1D convolution is one of planes of one row."""
    return (one_row, values[0]) if len(values) == 1 else (values[0], values[1])
