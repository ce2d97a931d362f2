"""Moments in 8 bits: what the map holds, how far a number is from its code, and that the Triton kernels agree."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from accelops.kernels.adam import blockwise
from accelops.kernels.adam.triton import blockwise as in_triton
from accelops.targets.triton import devices

CPU = torch.device("cpu")
SIGNS = pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])


@triton.jit
def encode(values, codes, scales, length, SIGNED: tl.constexpr, BLOCKS: tl.constexpr):
    i = 256 * tl.arange(0, BLOCKS)[:, None] + tl.arange(0, 256)[None, :]
    given = tl.load(values + i, mask=i < length, other=0.0)
    found, largest = in_triton.encode(given, SIGNED)
    tl.store(codes + i, found, mask=i < length)
    block = tl.arange(0, BLOCKS)
    tl.store(scales + block, largest, mask=block * 256 < length)


@triton.jit
def decode(codes, scales, values, numbers, length, BLOCKS: tl.constexpr):
    i = 256 * tl.arange(0, BLOCKS)[:, None] + tl.arange(0, 256)[None, :]
    block = tl.arange(0, BLOCKS)
    given = tl.load(codes + i, mask=i < length)
    largest = tl.load(scales + block, mask=block * 256 < length)
    tl.store(values + i, in_triton.decode(given, largest, numbers, i < length), mask=i < length)


def by_triton(values: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    values = values.to(devices()[0])
    codes, scales = blockwise.zeros(values, signed)
    encode[(1,)](values, codes, scales, values.numel(), signed, triton.next_power_of_2(len(scales)))
    return codes.cpu(), scales.cpu()


def samples(signed: bool) -> Tensor:
    """All magnitudes that the map knows and more, its own numbers, and the borders between them a little up and down."""
    exact = blockwise.numbers(signed, CPU)
    borders = (exact[1:] + exact[:-1]) / 2
    magnitudes = 10 ** (torch.rand(4000) * -8.5)
    given = torch.cat([exact, borders * (1 + 1e-4), borders * (1 - 1e-4), magnitudes, torch.tensor([0.0, 1.0])])
    if signed:
        given = torch.cat([given, -given])
    given = given[torch.randperm(len(given))]
    given = given.clamp(-1, 1)
    given[::256] = 1  # each block's largest, so that its scale is 1
    return given


@SIGNS
def test_the_map_is_the_dynamic_tree(signed: bool) -> None:
    numbers = blockwise.numbers(signed, CPU)
    assert len(numbers) == 256 and numbers[-1] == 1 and numbers.diff().min() > 0
    assert numbers[127 if signed else 0] == 0
    if signed:  # one number more above 0 than below
        assert torch.equal(numbers[:127], -numbers[128:255].flip(0))
    parts = [int(((numbers >= 10.0**-k / 10) & (numbers < 10.0**-k)).sum()) for k in range(7)]
    assert parts == [2 ** (6 - k + (not signed)) for k in range(7)]
    # Its numbers are the middles of equal parts of a decade: of 0.1 to 1 the first is half a part above 0.1.
    part = 0.9 / parts[0]
    assert numbers[numbers >= 0.1][0] == pytest.approx(0.1 + part / 2)


@SIGNS
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, at the scale of a block of zeros
@pytest.mark.parametrize("how", ["aten", "triton"])
def test_a_number_is_at_most_half_a_step_from_its_code(how: str, signed: bool) -> None:
    values = samples(signed)
    codes, scales = blockwise.encoded(values, signed) if how == "aten" else by_triton(values, signed)
    assert scales.eq(1).all()
    numbers = blockwise.numbers(signed, CPU).double()
    found = numbers[codes.long()]
    nearest = (
        (values.double()[:, None] - numbers).abs().min(1).values
    )  # at most half a step, but below the first number
    assert ((found - values.double()).abs() <= nearest + 1e-6 * values.abs()).all()


@SIGNS
def test_scales_are_the_largest_magnitudes_of_256_elements_in_memory_order(signed: bool) -> None:
    values = torch.randn(7, 5, 6, 9).mul(1e-5).to(memory_format=torch.channels_last)
    if not signed:
        values = values.abs()
    flat = blockwise.in_memory(values)
    for codes, scales in (blockwise.encoded(values, signed), by_triton(flat, signed)):
        assert torch.equal(scales, torch.stack([block.abs().max() for block in flat.split(256)]))
        decoded = blockwise.decoded(codes, scales, signed)
        step = blockwise.numbers(signed, CPU).diff().max() / 2
        assert ((decoded.reshape(-1) - (flat if codes.dim() == 1 else values.reshape(-1))).abs() <= step * 6e-5).all()
    assert blockwise.encoded(values, signed)[0].stride() == values.stride()


@SIGNS
def test_triton_decodes_what_aten_encodes(signed: bool) -> None:
    values = samples(signed)[:1000] * 3e-7
    codes, scales = (t.to(devices()[0]) for t in blockwise.encoded(values, signed))
    found = torch.full_like(codes, 7, dtype=torch.float32)
    decode[(1,)](codes, scales, found, blockwise.numbers(signed, found.device), 1000, 4)
    assert torch.equal(found, blockwise.decoded(codes, scales, signed))


@SIGNS
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_zeros_stay_zeros_and_what_is_not_finite_spoils_its_block_alone(signed: bool) -> None:
    values = torch.zeros(1024)
    values[300], values[600] = float("inf"), float("nan")
    for codes, scales in (blockwise.encoded(values, signed), by_triton(values, signed)):
        decoded = blockwise.decoded(codes, scales, signed)
        assert decoded[:256].eq(0).all() and decoded[768:].eq(0).all()
        assert not decoded[300].isfinite() and not decoded[600].isfinite()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_block_too_small_for_fp32_is_not_mistaken() -> None:
    values = torch.zeros(256)
    values[::2] = 1e-42  # whose inverse is infinite
    for codes, scales in (blockwise.encoded(values, False), by_triton(values, False)):
        assert (blockwise.decoded(codes, scales, False) - values).abs().max() <= 1e-42
