"""The problems that are compiled: the conv suites of bench/suites.py, in bf16 and with the batches of a TPU, and the
parameters of ResNet-50 for adam and bucket; or one problem that a person describes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.bucket.spec import BucketSpec
from accelops.kernels.conv.spec import DIRECTIONS
from accelops.kernels.spec import ITEMSIZE, Spec

from ..suites import NETWORKS, Layer, conv_cases, resnet50_parameters
from .chips import Chip

SUITES = (*NETWORKS, "adam", "bucket")
OPS = ("conv", "adam", "bucket")
BATCH = 64
DTYPE = "bfloat16"
DEVICE = "xla"
RANKS = 8
# The smallest topologies of 8 devices.
_EIGHT = {"v4": "v4:2x2x1", "v5e": "v5e:2x4", "v5p": "v5p:2x2x2", "v6e": "v6e:2x4", "v7x": "tpu7x:2x2x1"}


@dataclass(frozen=True)
class Case:
    """`spec` is met `multiplicity` times. `options` go to the builders of the Launches, `baseline` to the stock one alone:
    shapes of parameters, eager mode."""

    name: str
    spec: Spec
    multiplicity: int = 1
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    baseline: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def devices(self) -> int:
        """How many take part: those that reduce, otherwise one."""
        return self.spec.ranks if isinstance(self.spec, BucketSpec) and self.spec.direction == "reduce" else 1

    def topology(self, chip: Chip) -> str:
        return chip.topology if self.devices == 1 else _EIGHT[chip.name]


def suite(name: str, batch: int = BATCH, dtype: str = DTYPE) -> list[Case]:
    """Raises ValueError for a name that is no suite's. Adam and the gradients are fp32 whatever `dtype` is: their specs
    are those of a training step."""
    if dtype not in ITEMSIZE:
        raise ValueError(f"dtype={dtype!r} is unknown; choose one of {', '.join(ITEMSIZE)}")
    if name == "adam":
        return _adam(resnet50_parameters())
    if name == "bucket":
        return _bucket(resnet50_parameters())
    if name not in NETWORKS:
        raise ValueError(f"suite={name!r} is unknown; choose one of {', '.join(SUITES)}")
    return [
        Case(case.name, replace(case.spec, dtype=dtype, device=DEVICE), case.multiplicity)
        for case in conv_cases(name, batch)
    ]


def described(op: str, shape: str, stride: int = 1, dtype: str | None = None) -> list[Case]:
    """The cases of one problem. `shape` is "64,128,56,56:128,4,3,3" (input and weight, padded to keep the size) for conv,
    and "25557032" or "25557032:161" (elements and tensors) for adam and bucket. Raises ValueError where it is not."""
    if op not in OPS:
        raise ValueError(f"op={op!r} is unknown; choose one of {', '.join(OPS)}")
    sizes = _sizes(shape)
    if op == "conv":
        return _convolutions(sizes, shape, stride, dtype or DTYPE)
    numel, tensors = sizes[0][0], sizes[1][0] if len(sizes) > 1 else 1
    if len(sizes) > 2 or any(len(size) != 1 for size in sizes) or tensors < 1 or numel % tensors:
        raise ValueError(f"shape={shape!r}: expected ELEMENTS or ELEMENTS:TENSORS, as many elements in each tensor")
    if op == "adam":
        spec = AdamSpec(numel, tensors, dtype or "float32", dtype or "float32", device=DEVICE)
        return [Case(f"adam {shape}", spec)]
    return [Case(f"all-reduce {shape}", BucketSpec("reduce", numel, tensors, dtype or "float32", dtype or "float32", RANKS, device=DEVICE))]  # fmt: skip


def _sizes(shape: str) -> list[tuple[int, ...]]:
    try:
        return [tuple(int(size) for size in part.split(",")) for part in shape.split(":")]
    except ValueError:
        raise ValueError(
            f"shape={shape!r}: expected whole numbers with commas, such as 64,128,56,56:128,4,3,3"
        ) from None


def _convolutions(sizes: Sequence[tuple[int, ...]], shape: str, stride: int, dtype: str) -> list[Case]:
    if len(sizes) != 2 or len(sizes[0]) != len(sizes[1]) or len(sizes[0]) not in (3, 4, 5):
        raise ValueError(f"shape={shape!r}: expected INPUT:WEIGHT of 3 to 5 sizes each, such as 64,128,56,56:128,4,3,3")
    (batch, c, *pixels), (k, each, *kernel) = sizes
    if min(each, k, stride) < 1 or c % each or k % (c // each):
        raise ValueError(
            f"shape={shape!r}: {each} channels of each filter do not divide {c} of the input and {k} filters"
        )
    layer = Layer(c, k, tuple(pixels), tuple(kernel), stride, c // each, len(pixels))
    return [
        Case(layer.name, replace(layer.spec(batch, direction), dtype=dtype, device=DEVICE)) for direction in DIRECTIONS
    ]


def _adam(shapes: Sequence[tuple[int, ...]]) -> list[Case]:
    numel = sum(map(prod, shapes))
    flat = 25 * 2**20  # near ResNet-50's 25.6 M, and whole tiles
    return [
        Case(f"adam, {len(shapes)} tensors in one graph", AdamSpec(numel, len(shapes), device=DEVICE), options={"shapes": shapes}),
        Case("adam, flat, in eager mode", AdamSpec(flat, device=DEVICE), baseline={"eager": True}),
        Case("adam, flat, in one graph", AdamSpec(flat, device=DEVICE)),
    ]  # fmt: skip


def _bucket(shapes: Sequence[tuple[int, ...]]) -> list[Case]:
    numel, count = sum(map(prod, shapes)), len(shapes)
    return [
        Case(f"all-reduce, {count} gradients, {wire}", BucketSpec("reduce", numel, count, "float32", wire, RANKS, device=DEVICE), options={"shapes": shapes})
        for wire in ("float32", "bfloat16")
    ]  # fmt: skip
