"""What a correlation is of: images, weights, and how these go over those."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor

Pair = tuple[int, int]


@dataclass(frozen=True)
class Moves:
    """How the kernel goes over rows and columns; a negative padding leaves out the first of them."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def along(self, d: int) -> tuple[int, int, int]:
        """Stride, padding and dilation of dimension `d`."""
        return self.stride[d], self.padding[d], self.dilation[d]


class Images:
    """(N, groups, C, H, W). As a context: what of them lies on the board, and what was made of them."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.on_board: dict[tuple[int, ...], Any] = {}
        self.folded: dict[Any, Images] = {}

    def __enter__(self) -> Images:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self.on_board:
            self.on_board.popitem()[1].free()
        while self.folded:
            self.folded.popitem()[1].__exit__(kind, error, trace)


@dataclass(frozen=True)
class Weights:
    """(groups, K, C, R, S). Where they are the part `part` of `owner`, they stay on the board as long as it lives and they
    do not change."""

    values: Tensor
    owner: Tensor | None = None
    part: tuple[Any, ...] = ()
