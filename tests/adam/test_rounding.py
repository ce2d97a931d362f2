"""Stochastic rounding: its random numbers are Philox's, its results neighbours in bf16, its mean the number itself."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from accelops.kernels.adam import rounding
from accelops.kernels.adam.triton import rounding as in_triton
from accelops.targets.triton import devices

STEP = torch.tensor(7.0)


@triton.jit
def draw(out, seed, row, step, first, BLOCK: tl.constexpr):
    tl.store(out + tl.arange(0, BLOCK), in_triton.bits(seed, tl.load(row), tl.load(step), tl.load(first), BLOCK))


@triton.jit
def round_all(out, values, drawn, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, in_triton.rounded(tl.load(values + i), tl.load(drawn + i)))


def rounded(values: Tensor, seed: int = 1, row: int = 0, step: Tensor = STEP) -> Tensor:
    out = torch.empty_like(values, dtype=torch.bfloat16)
    rounding.round_(out, values, seed, row, step)
    return out


def test_the_generator_gives_the_published_numbers() -> None:
    """Known answers of Random123 (kat_vectors: philox4x32 10)."""
    for counter, key, expected in (
        (0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ):
        words = rounding.philox(key, tuple(torch.tensor([counter]) for _ in range(4)))
        assert tuple(w.item() for w in words) == expected


@pytest.mark.parametrize("seed", [0, 3, 2**62 + 12345])
def test_triton_draws_the_same(seed: int) -> None:
    device = devices()[0]
    out = torch.empty(512, dtype=torch.int32, device=device)
    row, step = (torch.tensor(n, dtype=torch.int32, device=device) for n in (5, 9))
    draw[(1,)](out, seed, row, step, torch.tensor(1024, device=device), 512)
    assert torch.equal(out.cpu(), rounding.bits(1536, seed, 5, torch.tensor(9))[1024:])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_triton_rounds_the_same() -> None:
    special = [0.0, -0.0, float("inf"), -float("inf"), 3.4e38, -3.4e38, 1e-40, 2.0]  # NaN has no equal
    values = torch.cat([torch.randn(1016), torch.tensor(special)]).to(devices()[0])
    drawn = rounding.bits(1024, 1, 0, STEP).to(values.device)
    out = torch.empty_like(values, dtype=torch.bfloat16)
    round_all[(1,)](out, values, drawn, 1024)
    assert torch.equal(out.cpu(), rounded(values.cpu()))


def test_what_is_no_number_stays_none() -> None:
    """Of the first NaN the bits beyond bf16's are an infinity's, to the second no bit can be added."""
    values = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, 0x7FC00000] * 256, dtype=torch.int32).view(torch.float32)
    assert values.isnan().all() and rounded(values).isnan().all()
    values = values.to(devices()[0])
    out = torch.empty_like(values, dtype=torch.bfloat16)
    round_all[(1,)](out, values, rounding.bits(1024, 1, 0, STEP).to(values.device), 1024)
    assert out.isnan().all()


def test_a_number_becomes_one_of_its_two_neighbours() -> None:
    values = torch.randn(5000) * 10 ** torch.randint(-20, 20, (5000,)).float()
    found = rounded(values)
    toward_zero = (values.view(torch.int32) >> 16 << 16).view(torch.float32)
    away = ((values.view(torch.int32) >> 16) + 1 << 16).view(torch.float32)
    assert (found.float().eq(toward_zero) | found.float().eq(away)).all()
    assert found.float().eq(toward_zero).any() and found.float().eq(away).any()
    exact = values.bfloat16()
    assert torch.equal(rounded(exact.float()), exact)
    odd = rounded(torch.tensor([float("nan"), float("inf"), -float("inf")]))
    assert odd[0].isnan() and odd[1] == float("inf") and odd[2] == -float("inf")


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9])
def test_the_mean_is_the_number_itself(share: float) -> None:
    """Over n draws the share that rounds up has a standard deviation of sqrt(share (1 - share) / n); 5 of them are
    exceeded once in 1.7 million tests."""
    n, ulp = 400_000, 2.0**-7
    values = torch.full((n,), 1 + share * ulp)
    exact = (values[0].item() - 1) / ulp
    up = rounded(values, seed=torch.seed() % 2**63).float().sub(1).div(ulp).double().mean().item()
    assert abs(up - exact) <= 5 * (exact * (1 - exact) / n) ** 0.5


def test_steps_rows_and_seeds_draw_anew_and_the_same_ones_again() -> None:
    values = torch.randn(4096)
    first = rounded(values)
    assert torch.equal(first, rounded(values))
    for other in (rounded(values, seed=2), rounded(values, row=1), rounded(values, step=STEP + 1)):
        assert 0.1 < first.ne(other).float().mean() < 0.6
