"""What a recorded call does again is what the call does: with Triton's interpreter in the place of compiled kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from accelops.dispatch.select import Selection
from accelops.kernels.conv import triton
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.targets import triton as gpu
from accelops.targets.triton_replay import Replay

from .cases import CASES

pytestmark = pytest.mark.skipif(not gpu.emulated(), reason="a GPU replays its own kernels: benchmarks/gpu.py")


class Compiled:
    """Takes a kernel's arguments as Triton's compiled kernels do: all, in order, with a grid of three in brackets."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.ran = kernel, 0

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        assert len(grid) == 3

        def run(*bound: Any) -> None:
            self.ran += 1
            self.kernel[grid](**dict(zip(self.kernel.arg_names, bound, strict=True)))

        return run


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Compiled]]:
    """Every kernel that was launched, and not replayed."""
    found: list[Compiled] = []

    def launcher(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> Compiled:
        kernel[grid](*arguments, **constants)
        found.append(Compiled(kernel))
        return found[-1]

    monkeypatch.setattr(gpu, "redirected", lambda: False)
    monkeypatch.setattr(gpu, "current_device", lambda: -1)  # the CPU's number
    with gpu.launching(launcher, gpu.architecture()):
        yield found


def results(call: Any, given: tuple[Tensor | None, ...]) -> list[Tensor]:
    got = call(*given)
    return [r for r in (got if isinstance(got, tuple) else (got,)) if r is not None]


def small(family: str, direction: str, form: str) -> ConvSpec:
    specs = [
        case.spec(direction, "float32", form, direction != "dgrad")
        for case in CASES
        if case.batch and len(case.size) > 1
    ]
    served = [spec for spec in specs if not triton.FAMILIES[family].unsupported(spec)]
    if not served:
        pytest.skip(f"{family} serves no {direction} in {form}")
    return min(served, key=lambda spec: spec.flops)


@pytest.mark.parametrize("form", ["contiguous", "channels_last"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("family", triton.FAMILIES)
def test_a_second_call_launches_what_the_first_did_with_its_own_tensors(
    compiled: list[Compiled], family: str, direction: str, form: str
) -> None:
    spec = small(family, direction, form)
    config = triton.FAMILIES[family].configs(spec)[0]
    call = triton.bind(config, spec)
    results(call, operands(spec, 1))
    launched = len(compiled)
    assert launched and not any(c.ran for c in compiled)
    for seed in (2, 3):
        given = operands(spec, seed)
        got = results(call, given)
        assert len(compiled) == launched and [c.ran for c in compiled] == [seed - 1] * launched
        with gpu.launching(lambda kernel, grid, *a, **k: kernel[grid](*a, **k), gpu.architecture()):
            expected = results(partial(triton.run, config, spec), given)
        assert len(got) == len(expected) and all(map(torch.equal, got, expected))


def test_misaligned_and_absent_operands_are_calls_of_another_kind(compiled: list[Compiled]) -> None:
    spec = replace(small("depthwise", "fprop", "contiguous"), bias=True)
    call = triton.bind(triton.configs(spec)[0], spec)
    input, weight, bias = operands(spec)
    assert input is not None
    shifted = torch.empty(input.numel() + 1)[1:].view(input.shape).copy_(input)
    for given in ((input, weight, bias), (shifted, weight, bias), (input, weight, None)):
        before = len(compiled)
        call(*given)
        assert len(compiled) > before
        before = len(compiled)
        call(*given)
        assert len(compiled) == before


def test_a_misaligned_operand_of_a_descriptor_is_copied_at_every_call(compiled: list[Compiled]) -> None:
    spec = small("boxes", "fprop", "channels_last")
    config = triton.FAMILIES["boxes"].configs(spec)[0]
    call = triton.bind(config, spec)
    for seed in (1, 2):
        input, *others = operands(spec, seed)
        assert input is not None
        shifted = torch.empty(input.numel() + 1).as_strided(input.shape, input.stride(), 1).copy_(input)
        got = results(call, (shifted, *others))
        assert [c.ran for c in compiled] == [seed - 1] * 2
        with gpu.launching(lambda kernel, grid, *a, **k: kernel[grid](*a, **k), gpu.architecture()):
            expected = results(partial(triton.run, config, spec), (input, *others))
        assert all(map(torch.equal, got, expected))


def test_what_the_circumstances_say_is_asked_at_every_call(compiled: list[Compiled]) -> None:
    spec = small("depthwise", "fprop", "contiguous")
    precision = ["ieee"]
    call = Replay(partial(triton.run, triton.configs(spec)[0], spec), lambda: precision[0])
    call(*operands(spec))
    precision[0] = "tf32"
    before = len(compiled)
    call(*operands(spec))
    assert len(compiled) == before + 1
    call(*operands(spec))
    assert len(compiled) == before + 1


def test_an_empty_batch_launches_nothing_and_is_run_anew_each_time(compiled: list[Compiled]) -> None:
    spec = next(c for c in CASES if c.name == "2d empty batch depthwise").spec("wgrad", bias=True)
    call = triton.bind(triton.configs(spec)[0], spec)
    for _ in range(2):
        assert all((r == 0).all() for r in results(call, operands(spec)))


def test_another_device_than_the_current_one_is_not_replayed(compiled: list[Compiled], monkeypatch: Any) -> None:
    spec = small("depthwise", "fprop", "contiguous")
    call = triton.bind(triton.configs(spec)[0], spec)
    call(*operands(spec))
    monkeypatch.setattr(gpu, "current_device", lambda: 0)
    before = len(compiled)
    call(*operands(spec))
    assert len(compiled) == before + 1


def test_dispatch_binds_once_for_a_selection(compiled: list[Compiled]) -> None:
    spec = small("depthwise", "fprop", "contiguous")
    selection = Selection(spec, "triton", triton.configs(spec)[0], "asked", "", {})
    first, second = (selection.run(*operands(spec), save=False)[0] for _ in range(2))
    assert len(compiled) == 1 and torch.equal(first, second) and first is not second
