"""What is special to the depthwise family of the cpu target: every Config, at the edges of its blocking, on every
instruction set, against the fp64 reference; and the same bits for any number of threads."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
import torch

from accelops.kernels.conv import cpu, reference
from accelops.kernels.conv.cpu import depthwise
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec

# Results of one dtype against fp64, relative to the largest: rounding once to bf16, or sums of up to some 10^4 fp32 terms.
TOLERANCE = {"float32": 2e-6, "bfloat16": 2**-8}


def spec(
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    channels: int = 19,
    batch: int = 2,
    **fields: object,
) -> ConvSpec:
    n = len(spatial)
    pad = tuple(dilation * (k - 1) // 2 if padding is None else padding for k in kernel)
    transposed = {"transposed": True, "output_padding": (0,) * n} if fields.pop("transposed", False) else {}
    return ConvSpec(
        fields.pop("direction", "fprop"), (batch, channels, *spatial), (channels, 1, *kernel), (stride,) * n, pad,
        (dilation,) * n, groups=channels, **transposed, **fields,
    )  # fmt: skip


EDGES = {
    "one pixel": spec((1, 1), (3, 3)),
    "kernel larger than the input": spec((4, 5), (7, 7)),
    "even kernel": spec((9, 11), (4, 2), padding=1),
    "more padding than kernel": spec((6, 7), (3, 3), padding=5),
    "no padding": spec((9, 35), (5, 5), padding=0),
    "stride 2": spec((15, 29), (5, 5), stride=2),
    "stride 3, even input": spec((16, 20), (3, 3), stride=3),
    "stride larger than the kernel": spec((13, 14), (2, 2), stride=3, padding=0),
    "dilation 2": spec((17, 18), (3, 3), dilation=2),
    "stride 2, dilation 2": spec((17, 18), (3, 3), stride=2, dilation=2),
    "stride 2, dilation 3": spec((19, 23), (3, 3), stride=2, dilation=3),
    "more taps than a run": spec((20, 20), (9, 11)),
    "many boxes": spec((150, 40), (3, 5)),
    "one channel more than a block": spec((7, 7), (3, 3), channels=65),
    "1D short": spec((3,), (5,)),
    "1D, 31 taps": spec((401,), (31,)),
    "1D, 63 taps": spec((100,), (63,)),
    "1D, stride 2": spec((131,), (15,), stride=2),
    "1D, dilation 8": spec((131,), (3,), dilation=8),
    "1D, boxes of a line": spec((70000,), (3,), channels=2, batch=1),
    "3D": spec((5, 9, 17), (3, 3, 3)),
    "3D, stride 2": spec((5, 9, 17), (3, 3, 3), stride=2),
    "3D, boxes of slices": spec((20, 33, 40), (3, 3, 3), channels=17, batch=1),
    "transposed": spec((7, 9), (3, 3), stride=2, transposed=True),
    "transposed 1D": spec((50,), (4,), stride=2, padding=1, transposed=True),
    "empty batch": spec((7, 7), (3, 3), batch=0),
}


def formats(s: ConvSpec) -> tuple[str, ...]:
    return ("contiguous",) if s.ndim == 1 else ("contiguous", "channels_last")


def in_format(s: ConvSpec, t: torch.Tensor) -> torch.Tensor:
    if s.memory_format == "contiguous" or t.dim() < 4:
        return t.contiguous()
    return t.contiguous(memory_format=torch.channels_last if t.dim() == 4 else torch.channels_last_3d)


def operands(s: ConvSpec, generator: torch.Generator) -> list[torch.Tensor | None]:
    def draw(*shape: int) -> torch.Tensor:
        return in_format(s, torch.randn(*shape, generator=generator).to(getattr(torch, s.dtype)))

    saved = draw(*s.output) if s.activation != "none" else None
    if s.direction == "fprop":
        return [draw(*s.input), draw(*s.weight), draw(s.out_channels) if s.bias else None]
    return [draw(*s.output), draw(*(s.weight if s.direction == "dgrad" else s.input)), saved]


def results(run: object) -> list[torch.Tensor]:
    return [t for t in (run if isinstance(run, tuple) else (run,)) if t is not None]


def check(s: ConvSpec, configs: list[depthwise.Config], seed: int) -> None:
    print("seed", seed)
    given = operands(s, torch.Generator().manual_seed(seed))
    options = {"save": s.activation in ("silu", "gelu")} if s.direction == "fprop" else {}
    exact = dataclasses.replace(s, dtype="float64")
    wide = [None if t is None else in_format(s, t.double()) for t in given]
    truth = results(reference.run(reference.Config(), exact, *wide, **options))
    for config in configs:
        for got, want in zip(results(cpu.run(config, s, *given, **options)), truth, strict=True):
            assert got.shape == want.shape and got.dtype == getattr(torch, s.dtype)
            if want.numel():
                error = (got.double() - want).abs().max() / want.abs().max().clamp(min=1e-30)
                assert error <= TOLERANCE[s.dtype], (config, float(error))


@pytest.fixture
def seed() -> int:
    return int.from_bytes(os.urandom(4), "little")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("edge", EDGES)
def test_every_config_is_right_at_the_edges(edge: str, direction: str, seed: int) -> None:
    for memory_format in formats(EDGES[edge]):
        s = dataclasses.replace(EDGES[edge], direction=direction, memory_format=memory_format)
        assert depthwise.unsupported(s) == []
        check(s, depthwise.configs(s), seed)


@pytest.mark.parametrize("width", range(1, 34))
def test_every_width_of_a_line(width: int, seed: int) -> None:
    for direction in DIRECTIONS:
        for stride in (1, 2):
            s = spec((4, width), (3, 3), stride=stride, channels=3, direction=direction)
            check(s, depthwise.configs(s)[:1], seed)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ["none", "relu", "silu", "gelu"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_bias_and_activation_are_fused_both_ways(direction: str, activation: str, dtype: str, seed: int) -> None:
    for shape, kernel in (((13, 21), (5, 5)), ((133,), (31,)), ((4, 6, 9), (3, 3, 3))):
        plain = spec(shape, kernel, direction=direction, activation=activation, dtype=dtype, bias=direction != "dgrad")
        for memory_format in formats(plain):
            s = dataclasses.replace(plain, memory_format=memory_format)
            check(s, depthwise.configs(s)[:1], seed)


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_any_number_of_threads_gives_the_same_bits(direction: str, memory_format: str, seed: int) -> None:
    s = spec((60, 40), (5, 5), channels=40, batch=5, direction=direction, memory_format=memory_format)
    given = operands(s, torch.Generator().manual_seed(seed))
    threads = torch.get_num_threads()
    seen = []
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            seen.append(results(cpu.run(depthwise.Config(), s, *given))[0])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(seen[0], other) for other in seen[1:])


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_lesser_instruction_sets_are_right_too(isa: str) -> None:
    """In a process of its own: the set is chosen once."""
    if os.environ.get("ACCELOPS_ISA"):
        pytest.skip("already in such a process")
    tests = f"{__file__}::test_bias_and_activation_are_fused_both_ways", f"{__file__}::test_every_width_of_a_line"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, env={**os.environ, "ACCELOPS_ISA": isa}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_what_is_not_depthwise_is_refused_with_its_reason() -> None:
    doubled = dataclasses.replace(spec((7, 7), (3, 3), channels=4), weight=(8, 1, 3, 3))
    assert depthwise.unsupported(doubled) == ["2 filters per channel: only one"]
    grouped = dataclasses.replace(doubled, groups=2, weight=(8, 2, 3, 3))
    assert "every channel must have a filter of its own" in depthwise.unsupported(grouped)[0]
    assert depthwise.unsupported(dataclasses.replace(spec((7, 7), (3, 3)), dtype="float16")) != []
