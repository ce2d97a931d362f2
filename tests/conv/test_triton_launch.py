"""What a convolution in Triton launches, of any size, on tensors without memory: enough tiles for all results and hardly
more, partial sums for every split, offsets as wide as the tensors need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from accelops.bench.suites import NETWORKS, channels_last, conv_cases
from accelops.kernels.conv import triton
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.targets.triton import ARCHITECTURES, launching, tensor_of

from .cases import CASES

INT32 = 1 << 31


@dataclass(frozen=True)
class Launch:
    kernel: str
    programs: int
    arguments: tuple[Any, ...]
    constants: dict[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for tensor in map(tensor_of, self.arguments) if tensor is not None]

    @property
    def tiles(self) -> int:
        """Those of all programs; one of boxes takes tiles until there are none, which the last two arguments count."""
        if self.kernel == "convolve_boxes":
            assert self.programs <= prod(self.arguments[-2:])
            return prod(self.arguments[-2:])
        return self.programs

    @property
    def numbers(self) -> list[int]:
        return [a for a in self.arguments if isinstance(a, int)]


def plan(config: Any, spec: ConvSpec, architecture: str = "sm_90") -> list[Launch]:
    seen: list[Launch] = []

    def launcher(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        seen.append(Launch(kernel.__name__, prod(grid), arguments, constants))

    spec = replace(spec, device="meta")
    with launching(launcher, ARCHITECTURES[architecture]):
        triton.run(config, spec, *operands(spec))
    return seen


def specs() -> list[ConvSpec]:
    """Every small case, and every layer of the suites, in every direction and memory format."""
    small = [case.spec(direction) for case in CASES for direction in DIRECTIONS]
    found = [*small, *(case.spec for network in NETWORKS for case in conv_cases(network))]
    found = [replace(s, bias=s.direction != "dgrad", dtype="bfloat16") for s in found]
    return [spec for s in found for spec in (s, channels_last(s)) if spec is not None and all(spec.output)]


def tile(launch: Launch) -> int:
    """Results of a tile (of one split, in a weight gradient)."""
    sizes = {
        "slide": ("BLOCK_C", "BLOCK_W", "ROWS"),
        "weigh": ("BLOCK_C", "ROWS", "COLUMNS"),
        "convolve_boxes": ("BOX_I", "BOX_D", "BOX_H", "BOX_W", "BLOCK_N"),
    }
    names = sizes.get(launch.kernel, ("BLOCK_M", "BLOCK_N"))
    return prod(launch.constants[name] for name in names) * launch.constants.get("TOGETHER", 1)


@pytest.mark.parametrize("family", triton.FAMILIES)
def test_there_are_enough_tiles_for_every_result(family: str) -> None:
    module = triton.FAMILIES[family]
    served = [spec for spec in specs() if not module.unsupported(spec)]
    assert len(served) > 10
    for spec in served:
        for config in module.configs(spec):
            main, *rest = plan(config, spec)
            what = (
                spec.weight if spec.direction == "wgrad" else spec.output if spec.direction == "fprop" else spec.input
            )
            assert main.tiles * tile(main) >= prod(what) and main.programs < INT32, (config, spec)
            assert all(abs(n) < INT32 for launch in (main, *rest) for n in launch.numbers)
            assert {launch.kernel for launch in rest} <= {"sum_splits", "sum_pixels"}
            assert_splits_are_summed(main, rest, spec)


def assert_splits_are_summed(main: Launch, rest: list[Launch], spec: ConvSpec) -> None:
    """Each buffer of partial sums, which are fp32 where operands and results are bf16, is read by one launch that writes
    all of a result."""
    sums = [launch for launch in rest if launch.kernel == "sum_splits"]
    others = [launch for launch in (main, *rest) if launch.kernel != "sum_splits"]
    written = [t for launch in others for t in launch.tensors if t.dtype == torch.float32]
    assert sorted(map(id, written)) == sorted(id(launch.tensors[0]) for launch in sums), spec
    for launch in sums:
        partial, out = launch.tensors
        splits, numel = partial.shape
        assert launch.numbers == [numel, splits] and numel == out.numel()
        assert launch.programs * launch.constants["BLOCK"] >= numel
    results = {tuple(launch.tensors[1].shape) for launch in sums}
    assert results <= ({spec.weight, (spec.out_channels,)} if spec.direction == "wgrad" else set())


@pytest.mark.parametrize("family", triton.FAMILIES)
def test_a_weight_gradient_is_not_split_beyond_its_pixels(family: str) -> None:
    module = triton.FAMILIES[family]
    for spec in specs():
        if spec.direction == "wgrad" and not module.unsupported(spec):
            for config in module.configs(spec):
                buffers = [
                    t for launch in plan(config, spec) for t in launch.tensors if t.dim() == 2 and t.dtype.itemsize == 4
                ]
                pixels = spec.input[0] * prod(spec.input[2:] if spec.transposed else spec.output[2:])
                assert all(b.shape[0] <= max(1, pixels) for b in buffers), (config, spec)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_offsets_are_wide_where_a_tensor_has_2_to_the_31_elements(direction: str) -> None:
    cases = {
        "depthwise": ConvSpec(direction, (70_000, 32, 32, 32), (32, 1, 3, 3), (1, 1), (1, 1), (1, 1), groups=32),
        "dense": ConvSpec(direction, (70_000, 32, 32, 32), (32, 32, 3, 3), (1, 1), (1, 1), (1, 1)),
        "grouped": ConvSpec(direction, (70_000, 32, 32, 32), (32, 4, 3, 3), (1, 1), (1, 1), (1, 1), groups=8),
        "pointwise": ConvSpec(direction, (70_000, 32, 32, 32), (32, 32, 1, 1), (1, 1), (0, 0), (1, 1)),
    }
    for family, spec in cases.items():
        module = triton.FAMILIES[family]
        assert module.unsupported(spec) == []
        for s in (spec, channels_last(spec)):
            assert s is not None
            for batch, wide in ((70_000, True), (60_000, False)):
                of_batch = replace(s, input=(batch, *s.input[1:]))
                main = plan(module.configs(of_batch)[0], of_batch)[0]
                assert main.constants["WIDE"] is wide and main.programs < INT32


def test_more_pixels_than_a_number_of_32_bits_are_refused_with_the_reason() -> None:
    spec = ConvSpec("fprop", (70_000, 1, 256, 256), (1, 1, 3, 3), (1, 1), (1, 1), (1, 1))
    assert any("2^31" in reason for reason in triton.FAMILIES["dense"].unsupported(spec))


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_operands_reach_the_kernels_as_they_are(direction: str, activation: str) -> None:
    """Nothing is copied or transposed on the way: operands and results alone, in their memory format."""
    for spec in specs()[:200]:
        spec = replace(spec, direction=direction, activation=activation, bias=direction != "dgrad")
        for family in triton.FAMILIES.values():
            if family.unsupported(spec):
                continue
            given = [t for t in operands(replace(spec, device="meta")) if t is not None]
            main = plan(family.configs(spec)[0], spec)[0]
            shapes = [tuple(t.shape) for t in main.tensors if t.dim() > 2]
            assert all(tuple(t.shape) in shapes for t in given if t.dim() > 2), spec
            assert main.constants["ACTIVATION"] == activation
