"""Which lines and columns of its source a depthwise kernel needs for some lines of its result: all of it known beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jax import lax

from ..problem import Problem

SUBLANES, LANES = 8, 128


@dataclass(frozen=True)
class Axis:
    """One dimension: out[o] = sum over taps t of filter[t] source[(o stride + t dilation - before) / spread], where that is
    whole and inside. A gather has spread 1; a scatter has stride 1, its filter reversed."""

    source: int
    out: int
    taps: int
    stride: int
    spread: int
    dilation: int
    before: int

    def taps_of(self, phase: int) -> list[tuple[int, int]]:
        """The taps that results phase, phase + spread, ... meet, each with the source's place for the first of them."""
        at = [phase * self.stride + t * self.dilation - self.before for t in range(self.taps)]
        return [(t, a // self.spread) for t, a in enumerate(at) if a % self.spread == 0]


def axis(p: Problem, i: int) -> Axis:
    """Of a gather's or wgrad's image, or of a scatter's result, which is then the source."""
    if p.kind == "scatter":
        before = p.dilation[i] * (p.taps[i] - 1) - p.padding[i]
        return Axis(p.result[i], p.image[i], p.taps[i], 1, p.stride[i], p.dilation[i], before)
    return Axis(p.image[i], p.result[i], p.taps[i], p.stride[i], 1, p.dilation[i], p.padding[i])


@dataclass(frozen=True)
class Tile:
    """`rows` lines of results, a multiple of lines.spread, and the `height` lines of the source that they need, from
    `first` on for the first of them. `width` columns hold a source's line with the zeros between and around."""

    lines: Axis
    columns: Axis
    images: int
    channels: int
    rows: int

    @cached_property
    def places(self) -> list[int]:
        """Of the source, for each tap of the first results."""
        return [at for phase in range(self.lines.spread) for _, at in self.lines.taps_of(phase)] or [0]

    @property
    def first(self) -> int:
        return min(self.places)

    @property
    def advance(self) -> int:
        """Lines of the source from one step to the next."""
        return self.rows // self.lines.spread * self.lines.stride

    @property
    def height(self) -> int:
        return max(self.places) - self.first + self.advance - self.lines.stride + 1

    @property
    def held(self) -> int:
        """Lines that a step brings: all but those outside."""
        return min(self.height, self.lines.source)

    @property
    def width(self) -> int:
        c = self.columns
        needed = (c.out - 1) * c.stride + (c.taps - 1) * c.dilation + 1
        return up(max(needed, c.before + (c.source - 1) * c.spread + 1), SUBLANES)

    @property
    def steps_each(self) -> int:
        """Steps of an image."""
        return -(-self.lines.out // self.rows)

    @property
    def grid(self) -> tuple[int, int]:
        """Two halves of all steps, which the two cores of a v4 or v5p take; a single one where they are odd."""
        steps = self.images * self.steps_each
        return (2, steps // 2) if steps % 2 == 0 else (1, steps)

    def split(self, step: Any) -> tuple[Any, Any]:
        """(image, which of its tiles) of a step. `//` and `%` would ask which TPU is here."""
        return lax.div(step, self.steps_each), lax.rem(step, self.steps_each)

    def bytes(self, itemsize: int, results: int) -> int:
        """Of vector memory: the lines in fp32, and twice what comes and goes, `results` blocks among it."""
        lanes = up(self.channels, LANES)
        moved = self.held * self.columns.source + results * self.rows * up(self.columns.out, SUBLANES)
        return lanes * (4 * self.height * self.width + 2 * itemsize * moved)


def up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
