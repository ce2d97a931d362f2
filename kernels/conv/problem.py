"""A convolution as the kernels see it: always three spatial dimensions, and no word of transposition.

A convolution ties two sides together: on the *image* lie the taps, the *result* has one pixel for each position of them.
image pixel = result pixel * stride - padding + tap * dilation, in each dimension. A transposed convolution is the same with
input and output exchanged; so there are three things to compute, each by one of the kernels:

    gather   result from image and weight: fprop; dgrad of a transposed one
    scatter  image from result and weight: dgrad; fprop of a transposed one
    wgrad    weight from image and result

The weight is (K, C / groups, T, R, S) in all of them: K channels of the result, C of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod

from .spec import ConvSpec

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Problem:
    """`forward` says that bias and activation follow; otherwise an activation's slope meets the gradient that is read:
    the result in scatter, the image in gather, and in wgrad the result (the image, where `transposed`)."""

    kind: str
    n: int
    c: int
    k: int
    groups: int
    image: Triple
    result: Triple
    taps: Triple
    stride: Triple
    padding: Triple
    dilation: Triple
    channels_last: bool
    forward: bool
    transposed: bool

    @property
    def wide(self) -> bool:
        """Whether an offset into a tensor may not fit 32 bits. A tile may end past its tensor, by less than the margin."""
        margin = 1 << 24
        return self.n * max(self.c * prod(self.image), self.k * prod(self.result)) >= (1 << 31) - margin


@lru_cache(maxsize=4096)
def problem(spec: ConvSpec) -> Problem:
    """The Problem of a ConvSpec, dimensions that it has not in front as ones."""
    image, result = (spec.output, spec.input) if spec.transposed else (spec.input, spec.output)
    kinds = {"fprop": "gather", "dgrad": "scatter"}
    if spec.transposed:
        kinds = {"fprop": "scatter", "dgrad": "gather"}
    return Problem(
        kind=kinds.get(spec.direction, "wgrad"),
        n=spec.input[0],
        c=image[1],
        k=result[1],
        groups=spec.groups,
        image=_three(image[2:], 1),
        result=_three(result[2:], 1),
        taps=_three(spec.kernel, 1),
        stride=_three(spec.stride, 1),
        padding=_three(spec.padding, 0),
        dilation=_three(spec.dilation, 1),
        channels_last=spec.memory_format == "channels_last",
        forward=spec.direction == "fprop",
        transposed=spec.transposed,
    )


def _three(values: tuple[int, ...], missing: int) -> Triple:
    return (*(missing,) * (3 - len(values)), *values)  # type: ignore[return-value]


@dataclass(frozen=True)
class Walk:
    """How a destination pixel meets its source in one dimension, in gather and scatter alike.

    Destination pixels come in `phases` kinds: phase + phases * m, m = 0, 1, ... Each has at most `count` taps,
    first + j * step, and with the j-th meets the source pixel base + m * source + j * reach, where
    base = (phase + offset - first * dilation) / phases, and `first` is the least tap for which that is whole.
    A gather has one phase; a scatter with a stride has `stride` of them, so that no tap is met in vain
    (Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", section 4.6)."""

    taps: int
    phases: int
    source: int
    count: int
    step: int
    reach: int
    offset: int
    dilation: int

    @property
    def partial(self) -> bool:
        """Whether a phase may have fewer than `count` taps."""
        return self.taps % self.step != 0 or self.step < self.phases


def walk(p: Problem, dimension: int) -> Walk:
    taps, stride = p.taps[dimension], p.stride[dimension]
    padding, dilation = p.padding[dimension], p.dilation[dimension]
    if p.kind == "gather":
        return Walk(taps, 1, stride, taps, 1, dilation, -padding, 0)
    step = stride // gcd(stride, dilation)
    return Walk(taps, stride, 1, -(-taps // step), step, -step * dilation // stride, padding, dilation)
