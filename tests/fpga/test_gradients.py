"""How layers become launches: the phases of a gradient add up to torch's gradient of the input, bands cover the small side,
and launches are modelled to keep the array busy. Figures are modelled."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from accelops.targets.fpga import boards
from accelops.targets.fpga.convolution import Geometry, conv_fp32, planned, seconds_in_parts, words_at_once
from accelops.targets.fpga.gradients import Sides, phases, planned_weight_launch, weight_plan


def by_phases(grad: torch.Tensor, weight: torch.Tensor, large: int, stride: int, padding: int, dilation: int):
    """The gradient of a 1D convolution's input, zero where no phase writes."""
    made = torch.zeros(large, dtype=grad.dtype)
    for phase in phases(large, len(weight), stride, padding, dilation):
        for u in range(phase.count):
            for j, tap in enumerate(phase.taps):
                p = u + j * phase.dilation - phase.padding
                if 0 <= p < len(grad):
                    made[phase.first + stride * u] += grad[p] * weight[tap]
    return made


@pytest.mark.parametrize("stride, dilation", list(product((1, 2, 3, 4), (1, 2, 3, 4))))
def test_phases_make_torchs_gradient_of_the_input(stride: int, dilation: int):
    torch.manual_seed(0)
    for large, taps, padding in product((1, 2, 7, 12), (1, 2, 3, 5), (0, 1, 2, 6)):
        small = (large + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        if small < 1:
            continue
        grad, weight = torch.randint(-9, 9, (small,)).double(), torch.randint(-9, 9, (taps,)).double()
        x = torch.zeros(1, 1, large, dtype=torch.float64, requires_grad=True)
        y = torch.nn.functional.conv1d(x, weight.view(1, 1, -1), None, stride, padding, dilation)
        (expected,) = torch.autograd.grad(y, x, grad.view(1, 1, -1))
        assert torch.equal(by_phases(grad, weight, large, stride, padding, dilation), expected.view(-1))


def test_phases_share_the_work_and_leave_out_what_no_tap_reaches():
    assert [len(phase.taps) for phase in phases(56, 3, 2, 1, 1)] == [2, 1]
    assert sum(phase.count for phase in phases(56, 3, 2, 1, 1)) == 56
    assert [phase.count for phase in phases(56, 1, 2, 0, 1)] == [28]


SIDES = (
    Sides(2, 8, 5, 7, 5, 3, 3),
    Sides(1, 3, 4, 1, 100, 1, 9, 1, 2, 1, 1),
    Sides(8, 64, 64, 56, 56, 3, 3),
    Sides(3, 3, 64, 112, 112, 7, 7, 2, 2),
    Sides(2, 16, 16, 14, 14, 3, 3, 1, 1, 12, 12),
)


@pytest.mark.parametrize("name", boards.names())
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_bands_cover_each_pixel_once_and_launches_fit_the_chip(name: str, sides: Sides):
    plan, array = weight_plan(name, sides), boards.board(name).sizes["conv_fp32"]
    met = torch.zeros(sides.P, sides.Q, dtype=torch.int64)
    launches = []
    for band in plan.bands:
        met[band.p :, band.q :][: band.rows * band.down, : band.columns * band.across] += 1
        entries = sides.N * band.down * band.across
        for begin in range(0, entries, plan.entries):
            g = planned_weight_launch(name, sides, band, min(plan.entries, entries - begin))
            assert (g.N, g.P * g.Q) == (sides.C, sides.R * sides.S)
            assert g.patch_words() <= array["input_words"]
            launches.append(conv_fp32(boards.board(name), g))
    assert (met == 1).all()
    assert tuple(launches) == plan.estimates


@pytest.mark.parametrize("name, goal", [("pynq-z2", 0.9), ("zcu104", 0.9)])
@pytest.mark.parametrize("size, channels", [(56, 64), (28, 128), (14, 256), (7, 512)])
def test_gradients_of_resnet50s_3x3_weights_are_modelled_to_reach_the_goal(
    name: str, goal: float, size: int, channels: int
):
    sides = Sides(8, channels, channels, size, size, 3, 3)
    board = boards.board(name)
    work = sides.N * channels * channels * size * size * 9
    array = board.sizes["conv_fp32"]
    peak = array["inputs"] * array["outputs"] * board.clock_mhz * 1e6
    assert work / peak / sum(e.seconds for e in weight_plan(name, sides).estimates) >= goal


def test_a_long_sum_is_modelled_faster_in_parts_and_a_short_one_is_not():
    """ResNet-50's last 3x3 layers: with all 512 channels on the chip there is room for a few pixels of one image."""
    board = boards.board("pynq-z2")
    g = Geometry(8, 7, 7, 64, 128, 3, 3, padding_h=1, padding_w=1)
    whole = conv_fp32(board, planned("conv_fp32", board, g)).seconds
    assert seconds_in_parts("pynq-z2", g) < 0.7 * whole
    assert words_at_once("pynq-z2", g, 64) < 64
    assert words_at_once("pynq-z2", g, 5) <= 5
    short = Geometry(8, 56, 56, 8, 16, 3, 3, padding_h=1, padding_w=1)
    assert words_at_once("pynq-z2", short, 8) == 8
