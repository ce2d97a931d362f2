"""What any implementation of convolution must do; tests/conv/test_<target>.py subclasses ConvContract.

Expectations are computed by torch in fp64 and, for tiny shapes, by `by_definition`, a numpy sum over taps of its own. The
allowed error is accelops.judge's: twice that of torch's kernel in the same dtype, with a floor where torch is nearly exact.
Every run finds the memory of its results full of NaN, and its operands between guards of NaN.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from accelops.judge import Operands, by_torch, in_double, poisoned_memory, results, rounding_of_terms, share_of_allowed
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import ACTIVATIONS, DIRECTIONS, ConvSpec
from accelops.kernels.conv.tensors import memory_format

from .cases import CASES, Case

DTYPES = ("float32", "bfloat16", "float16", "float64")
GUARD = 64  # elements on either side of an operand; also keeps the operand aligned to a cache line
NAMES = [case.name for case in CASES]
BY_NAME = {case.name: case for case in CASES}


def in_every_way(
    case: Case, dtype: str = "float32", bias: bool = False, activation: str = "none"
) -> Iterator[ConvSpec]:
    """The Specs of a case in every direction and memory format."""
    formats = ("contiguous", "channels_last") if len(case.size) > 1 else ("contiguous",)
    for direction, form in product(DIRECTIONS, formats):
        yield case.spec(direction, dtype, form, bias and direction != "dgrad", activation)


def exactly(spec: ConvSpec, given: Operands, save: bool = False) -> list[Tensor]:
    """By torch in double; where double is what is judged, by the definition in extended precision, rounded to double."""
    if spec.dtype == "float64" and spec.activation == "none":
        exact = by_definition(spec, *(None if t is None else t.numpy() for t in given))
        return [torch.from_numpy(value.astype(np.float64)) for value in exact]
    return in_double(spec, given, save)


@np.errstate(invalid="ignore")  # infinities are among the cases
def by_definition(
    spec: ConvSpec, first: np.ndarray, second: np.ndarray, third: np.ndarray | None = None
) -> list[np.ndarray]:
    """Convolution without activation in extended precision, over every pair of a tap and a pixel of the smaller side:
    one matrix product per group. It has nothing in common with the implementations."""
    (n, c, *_), k, g = spec.input, spec.out_channels, spec.groups
    shapes = {"x": spec.input, "y": spec.output, "w": spec.weight}
    names = {"fprop": "xwy", "dgrad": "ywx", "wgrad": "yxw"}[spec.direction]
    array = {name: np.zeros(shapes[name], np.longdouble) for name in "xwy"}
    array[names[0]] += first
    array[names[1]] += second
    x, y = array["x"].reshape(n, g, c // g, *spec.input[2:]), array["y"].reshape(n, g, k // g, *spec.output[2:])
    w = array["w"].reshape(g, -1, *spec.weight[1:])
    for tap, at_x, at_y in _pairs(spec):
        xs, ys = x[(..., *at_x)].swapaxes(0, 1), y[(..., *at_y)].swapaxes(0, 1)  # (G, N, channels)
        ws = w[(..., *tap)] if spec.transposed else w[(..., *tap)].swapaxes(1, 2)  # (G, C, K)
        if spec.direction == "fprop":
            ys += xs @ ws
        elif spec.direction == "dgrad":
            xs += ys @ ws.swapaxes(1, 2)
        else:
            ws += xs.swapaxes(1, 2) @ ys
    if spec.direction == "fprop" and third is not None:
        array["y"] += third.reshape(-1, *(1,) * spec.ndim)
    bias = [array["y"].sum(axis=(0, *range(2, 2 + spec.ndim)))] if spec.direction == "wgrad" and spec.bias else []
    return [array[names[2]], *bias]


def _pairs(spec: ConvSpec) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """(tap, input pixel, output pixel) of every product."""
    small, large = (spec.input, spec.output) if spec.transposed else (spec.output, spec.input)
    for pixel, tap in product(np.ndindex(*small[2:]), np.ndindex(*spec.kernel)):
        steps = zip(pixel, spec.stride, spec.padding, tap, spec.dilation, strict=True)
        at = tuple(x * s - p + t * d for x, s, p, t, d in steps)
        if all(0 <= a < size for a, size in zip(at, large[2:], strict=True)):
            yield (tap, pixel, at) if spec.transposed else (tap, at, pixel)


def guarded(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(a buffer full of NaN, a copy of `tensor` that lies inside it)."""
    buffer = torch.full((tensor.numel() + 2 * GUARD,), float("nan"), dtype=tensor.dtype)
    inside = buffer.as_strided(tensor.shape, tensor.stride(), GUARD)
    inside.copy_(tensor)
    return buffer, inside


class ConvContract:
    implementation: ClassVar[ModuleType]
    ours: ClassVar[bool] = True  # also held to what torch's own kernels do not promise

    @pytest.fixture(autouse=True)
    def seed(self) -> Iterator[None]:
        self.current_seed = random.randrange(1 << 30)
        print(f"seed {self.current_seed}")
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # the cases are tiny; one test is about threads
        yield
        torch.set_num_threads(before)

    def supported(self, specs: Iterator[ConvSpec]) -> list[ConvSpec]:
        return [spec for spec in specs if not self.implementation.unsupported(spec)]

    def configs(self, spec: ConvSpec) -> list[Any]:
        return self.implementation.configs(spec)

    def check(self, spec: ConvSpec, save: bool = False) -> None:
        """Every Config of `spec` against fp64, with poisoned results and guarded operands."""
        given = operands(spec, self.current_seed)
        if spec.activation == "relu" and spec.direction != "fprop":
            given = (*given[:2], given[2].relu())  # the saved value of ReLU is its output
        exact, of_torch = exactly(spec, given, save), by_torch(spec, given, save)
        rounding = rounding_of_terms(spec, given)
        buffers, inside = zip(*((None, None) if t is None else guarded(t) for t in given), strict=True)
        before = [None if b is None else b.clone() for b in buffers]
        configs = self.configs(spec)
        assert configs, spec
        for config in configs:
            with poisoned_memory():
                got = results(self.implementation, config, spec, inside, save)
            assert [(r.shape, r.dtype) for r in got] == [(r.shape, r.dtype) for r in of_torch], (config, spec)
            share = share_of_allowed(got, of_torch, exact, rounding)
            assert share <= 1, f"{share:.3g} times the error allowed: {config} on {spec}"
            assert not self.ours or got[0].is_contiguous(memory_format=memory_format(spec)), (config, spec)
            for buffer, old in zip(buffers, before, strict=True):
                assert buffer is None or torch.equal(buffer.nan_to_num(7.0), old.nan_to_num(7.0)), (config, spec)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("name", NAMES)
    def test_every_direction_matches_fp64_in_both_memory_formats(self, name: str, dtype: str) -> None:
        for spec in self.supported(in_every_way(BY_NAME[name], dtype, bias=True)):
            self.check(spec)

    @pytest.mark.parametrize("name", NAMES)
    def test_no_bias_is_needed(self, name: str) -> None:
        for spec in self.supported(in_every_way(BY_NAME[name])):
            self.check(spec)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("activation", ACTIVATIONS[1:])
    @pytest.mark.parametrize("name", NAMES)
    def test_activations_are_fused_forward_and_backward(self, name: str, activation: str, dtype: str) -> None:
        for spec in self.supported(in_every_way(BY_NAME[name], dtype, bias=True, activation=activation)):
            self.check(spec)
            if spec.direction == "fprop":
                self.check(spec, save=True)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("name", [case.name for case in CASES if case.batch])
    def test_nan_and_infinity_reach_what_they_touch_and_no_more_than_in_torch(self, name: str, value: float) -> None:
        """Exactly the results that the definition reaches, in fprop and dgrad. A weight whose tap meets nothing but padding
        may be zero or, where a kernel multiplies the padding's zeros, NaN; torch's own kernels disagree about all of that."""
        for spec in self.supported(in_every_way(BY_NAME[name])):
            given = operands(spec, self.current_seed)
            given[0][0, 0].fill_(value)
            touched = [~np.isfinite(t) for t in by_definition(spec, *(t.numpy() for t in given if t is not None))]
            allowed = [~t.isfinite().numpy() for t in exactly(spec, given)]
            for config in self.configs(spec):
                got = [~t.isfinite().numpy() for t in results(self.implementation, config, spec, given)]
                for mine, least, most in zip(got, touched, allowed, strict=True):
                    exact = self.ours and spec.direction != "wgrad"
                    assert (mine >= least).all() and (mine <= (least if exact else least | most)).all(), (config, spec)

    @pytest.mark.parametrize("name", NAMES)
    def test_results_do_not_depend_on_the_number_of_threads(self, name: str) -> None:
        for spec in self.supported(in_every_way(BY_NAME[name], bias=True)) if self.ours else ():
            given = operands(spec, self.current_seed)
            for config in self.configs(spec):
                self.assert_same_on_every_thread_count(config, spec, given)

    def assert_same_on_every_thread_count(self, config: Any, spec: ConvSpec, given: Operands) -> None:
        one: list[Tensor] = []
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            got = results(self.implementation, config, spec, given)
            one = one or got
            assert all(map(torch.equal, got, one)), (threads, config, spec)
