"""What is special to the pointwise family: panels that images and rows straddle, partial tiles, blocked sums."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys

import pytest
import torch

from accelops.kernels.conv import cpu
from accelops.kernels.conv.cpu import pointwise
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import ConvSpec

from .against_fp64 import check, in_every_direction, poison_the_heap, results


@pytest.fixture
def seed() -> int:
    value = random.randrange(1 << 30)
    print(f"seed {value}")
    poison_the_heap()
    return value


def spec(size: tuple[int, ...], c: int = 20, k: int = 30, batch: int = 3, **other) -> ConvSpec:
    ndim = len(size)
    fields = {"stride": (1,) * ndim, "padding": (0,) * ndim, "dilation": (1,) * ndim, **other}
    return ConvSpec(direction="fprop", input=(batch, c, *size), weight=(k, c, *(1,) * ndim), **fields)


@pytest.mark.parametrize("width", range(1, 34))
def test_images_of_every_size_across_panels(width: int, seed: int) -> None:
    for problem in in_every_direction(spec((1, width), bias=True)):
        check(pointwise, problem, seed)


@pytest.mark.parametrize("c", [1, 2, 15, 16, 17, 33, 300])
@pytest.mark.parametrize("k", [1, 13, 14, 15, 29, 32, 33, 130])
def test_channel_counts_around_the_tiles(c: int, k: int, seed: int) -> None:
    for problem in in_every_direction(spec((5, 9), c, k, bias=True)):
        check(pointwise, problem, seed)


@pytest.mark.parametrize("size", [(7, 7), (8, 15), (1, 33), (20, 2)])
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (3, 1)])
def test_strides_on_odd_and_even_sizes(size: tuple[int, int], stride: tuple[int, int], seed: int) -> None:
    for problem in in_every_direction(spec(size, stride=stride, bias=True)):
        check(pointwise, problem, seed)


@pytest.mark.parametrize("size", [(45,), (4, 5, 6), (3, 1, 7)])
@pytest.mark.parametrize("stride", [1, 2])
def test_one_and_three_dimensions(size: tuple[int, ...], stride: int, seed: int) -> None:
    for problem in in_every_direction(spec(size, stride=(stride,) * len(size))):
        check(pointwise, problem, seed)


def test_sums_longer_than_a_block(seed: int) -> None:
    for problem in in_every_direction(spec((30, 40), 700, 20, batch=2, bias=True)):
        check(pointwise, problem, seed)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
@pytest.mark.parametrize("stride", [1, 2])
def test_activations_forward_and_backward(activation: str, stride: int, seed: int) -> None:
    for problem in in_every_direction(spec((9, 19), activation=activation, stride=(stride, stride), bias=True)):
        check(pointwise, problem, seed)


def test_an_empty_batch_gives_empty_images_and_zero_gradients() -> None:
    for problem in in_every_direction(spec((5, 6), batch=0, bias=True)):
        for config in pointwise.configs(problem):
            for result in results(cpu, config, problem, operands(problem)):
                assert result.eq(0).all()


def test_the_number_of_threads_does_not_change_a_bit(seed: int) -> None:
    before = torch.get_num_threads()
    try:
        for problem in in_every_direction(spec((29, 31), 70, 90, batch=4, bias=True)):
            given, per_count = operands(problem, seed), []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                per_count.append(results(cpu, pointwise.configs(problem)[0], problem, given))
            for others in per_count[1:]:
                assert all(torch.equal(a, b) for a, b in zip(per_count[0], others, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_other_instruction_sets(isa: str) -> None:
    selected = "channel_counts or activations or strides"
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", f"({selected}) and not instruction"]
    done = subprocess.run(command, env={**os.environ, "ACCELOPS_ISA": isa}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_what_it_does_not_support_is_named() -> None:
    good = spec((5, 5))
    assert pointwise.unsupported(good) == []
    for change, word in (
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"groups": 2, "weight": (30, 10, 1, 1)}, "groups=2"),
        ({"transposed": True}, "transposed"),
        ({"device": "cuda"}, "cuda"),
        ({"padding": (1, 0)}, "padding"),
        ({"weight": (30, 20, 3, 1)}, "kernel"),
    ):
        assert any(word in reason for reason in pointwise.unsupported(dataclasses.replace(good, **change)))
