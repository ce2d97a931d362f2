"""What is special to the grouped family: rows of any width, bands, phases of strides, odd channel counts per group."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys

import pytest
import torch

from accelops.kernels.conv import cpu
from accelops.kernels.conv.cpu import grouped
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import ConvSpec

from .against_fp64 import check, in_every_direction, poison_the_heap, results


@pytest.fixture
def seed() -> int:
    value = random.randrange(1 << 30)
    print(f"seed {value}")
    poison_the_heap()
    return value


def spec(
    size: tuple[int, ...], c: int = 4, k: int = 4, groups: int = 3, kernel: int = 3, batch: int = 2, **other
) -> ConvSpec:
    """`c` and `k` are channels per group; padding keeps the size unless given."""
    ndim = len(size)
    fields = {"stride": (1,) * ndim, "padding": (kernel // 2,) * ndim, "dilation": (1,) * ndim, **other}
    return ConvSpec(
        direction="fprop",
        input=(batch, c * groups, *size),
        weight=(k * groups, c, *(kernel,) * ndim),
        groups=groups,
        **fields,
    )


@pytest.mark.parametrize("width", range(1, 34))
def test_rows_of_every_width(width: int, seed: int) -> None:
    for problem in in_every_direction(spec((3, width))):
        check(grouped, problem, seed)


@pytest.mark.parametrize(
    ("c", "k"), [(1, 3), (2, 2), (3, 5), (4, 7), (6, 9), (8, 8), (16, 16), (5, 17), (17, 2), (32, 32)]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_channel_counts_per_group(c: int, k: int, dtype: str, seed: int) -> None:
    for problem in in_every_direction(spec((6, 9), c, k, dtype=dtype, bias=True)):
        check(grouped, problem, seed)


@pytest.mark.parametrize("size", [(7, 7), (8, 15), (1, 33), (20, 6)])
@pytest.mark.parametrize("stride", [(2, 2), (1, 3), (3, 2), (4, 1)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2), (4, 0)])
def test_strides_on_odd_and_even_sizes(
    size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], seed: int
) -> None:
    problem = spec(size, stride=stride, padding=padding)
    if min(problem.output) < 1:
        problem = dataclasses.replace(problem, padding=(1, 1))
    for each in in_every_direction(problem):
        check(grouped, each, seed)


@pytest.mark.parametrize("dilation", [(2, 2), (1, 4), (5, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_dilation(dilation: tuple[int, int], stride: int, seed: int) -> None:
    for problem in in_every_direction(spec((13, 17), dilation=dilation, stride=(stride, stride), padding=(4, 3))):
        check(grouped, problem, seed)


def test_a_stride_beyond_the_kernel_leaves_zeros_in_the_gradient(seed: int) -> None:
    for problem in in_every_direction(spec((10, 11), kernel=1, stride=(3, 4), padding=(0, 0))):
        check(grouped, problem, seed)


@pytest.mark.parametrize("size", [(50,), (1001,), (5, 6, 7), (1, 9, 3), (9, 1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_one_and_three_dimensions(size: tuple[int, ...], stride: int, seed: int) -> None:
    for problem in in_every_direction(spec(size, stride=(stride,) * len(size), bias=True)):
        check(grouped, problem, seed)


def test_planes_larger_than_a_band(seed: int) -> None:
    for problem in in_every_direction(spec((61, 67), 8, 8, groups=2, bias=True)):
        check(grouped, problem, seed)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_forward_and_backward(activation: str, dtype: str, seed: int) -> None:
    for problem in in_every_direction(spec((9, 19), activation=activation, dtype=dtype, bias=True)):
        check(grouped, problem, seed)


def test_an_empty_batch_gives_empty_images_and_zero_gradients() -> None:
    for problem in in_every_direction(spec((5, 6), batch=0, bias=True)):
        for config in grouped.configs(problem):
            for result in results(cpu, config, problem, operands(problem)):
                assert result.eq(0).all()


def test_the_number_of_threads_does_not_change_a_bit(seed: int) -> None:
    before = torch.get_num_threads()
    try:
        for problem in in_every_direction(spec((29, 31), 8, 8, batch=5, bias=True)):
            given, per_count = operands(problem, seed), []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                per_count.append(results(cpu, grouped.configs(problem)[0], problem, given))
            for others in per_count[1:]:
                assert all(torch.equal(a, b) for a, b in zip(per_count[0], others, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_other_instruction_sets(isa: str) -> None:
    selected = "channel_counts or activations or strides or other_dimensions"
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", f"({selected}) and not instruction"]
    done = subprocess.run(command, env={**os.environ, "ACCELOPS_ISA": isa}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_what_it_does_not_support_is_named() -> None:
    good = spec((5, 5))
    assert grouped.unsupported(good) == []
    for change, word in (
        ({"dtype": "float64"}, "float64"),
        ({"groups": 1, "weight": (12, 12, 3, 3)}, "groups=1"),
        ({"transposed": True}, "transposed"),
        ({"device": "cuda"}, "cuda"),
        ({"groups": 1, "weight": (64, 33, 3, 3), "input": (1, 33, 5, 5)}, "64 channels"),
    ):
        assert any(word in reason for reason in grouped.unsupported(dataclasses.replace(good, **change)))
