"""The convolutions, C-simulated: in int8 torch's exactly, in fp32 as close to fp64 as torch, and the modelled trips."""

from __future__ import annotations

import pytest
import torch

from accelops.targets.fpga import boards
from accelops.targets.fpga.convolution import ENGINES, Geometry, conv_fp32, conv_int8, planned

RAW = 1
BIAS, RELU = 1, 2
GEOMETRIES = (
    Geometry(2, 5, 7, 1, 2, 3, 3, padding_h=1, padding_w=1, tile_n=1, tile_p=3, tile_q=4),
    Geometry(3, 4, 3, 2, 1, tile_n=2, tile_p=4, tile_q=3),
    Geometry(1, 9, 8, 1, 1, 3, 3, stride_h=2, stride_w=2, padding_h=1, padding_w=1, tile_n=1, tile_p=2, tile_q=3),
    Geometry(1, 8, 9, 2, 2, 5, 3, 2, 1, 4, 0, 1, 2, 1, 4, 4),
    Geometry(2, 8, 7, 2, 2, stride_h=2, stride_w=3, tile_n=2, tile_p=4, tile_q=3),
    Geometry(1, 7, 6, 1, 2, stride_h=3, stride_w=2, padding_h=2, padding_w=1, tile_n=1, tile_p=2, tile_q=3),
    Geometry(1, 5, 9, 1, 1, 1, 3, 2, 2, padding_w=1, tile_n=1, tile_p=3, tile_q=2),
    Geometry(1, 6, 6, 1, 1, 3, 3, 3, 2, 3, 3, tile_n=1, tile_p=3, tile_q=2),
    Geometry(0, 4, 4, 1, 1, tile_n=1, tile_p=4, tile_q=4),
    # Of a strided layer's input gradient, two phases, which see more zeros behind the image than before it;
    Geometry(2, 5, 4, 1, 1, 2, 2, tile_n=1, tile_p=2, tile_q=4, rows=4, columns=4),
    Geometry(1, 3, 4, 1, 2, 2, 3, padding_w=2, tile_n=1, tile_p=3, tile_q=7, rows=3, columns=7),
    # of its weights' gradient, whose kernel is a band of 4 x 3 pixels, and of that of a dilated layer.
    Geometry(5, 9, 7, 2, 1, 4, 3, dilation_h=2, dilation_w=2, tile_n=2, tile_p=3, tile_q=3),
    Geometry(3, 6, 7, 1, 1, 2, 3, stride_h=2, tile_n=3, tile_p=3, tile_q=5),
)


def packed_x(x: torch.Tensor, block: int) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, c // block, block, h, w).permute(0, 1, 3, 4, 2).contiguous()


def packed_w(w: torch.Tensor, outputs: int, inputs: int) -> torch.Tensor:
    k, c, r, s = w.shape
    return w.view(k // outputs, outputs, c // inputs, inputs, r, s).permute(0, 2, 4, 5, 1, 3).contiguous()


def unpacked_y(y: torch.Tensor) -> torch.Tensor:
    n, blocks, p, q, block = y.shape
    return y.permute(0, 1, 4, 2, 3).reshape(n, blocks * block, p, q)


def by_torch(g: Geometry, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """With zeros behind the image as far as the outputs that are made reach, which may be less far than the image."""
    below = (g.P - 1) * g.stride_h + (g.R - 1) * g.dilation_h + 1 - g.padding_h - g.H
    right = (g.Q - 1) * g.stride_w + (g.S - 1) * g.dilation_w + 1 - g.padding_w - g.W
    padded = torch.nn.functional.pad(x, (g.padding_w, right, g.padding_h, below))
    return torch.conv2d(padded, w, bias, (g.stride_h, g.stride_w), 0, (g.dilation_h, g.dilation_w))


def run(simulated, board: str, g: Geometry, flags: int, lowest: int = -128):
    """Random operands: (y, trips, the exact sums, bias, multiplier, shift), the last three per channel."""
    torch.manual_seed(g.H * g.W + flags)
    array = boards.board(board).sizes["conv_int8"]
    outputs, inputs = array["outputs"], array["inputs"]
    channels, features = g.C * inputs, g.K * outputs
    x = torch.randint(-128, 128, (g.N, channels, g.H, g.W), dtype=torch.int8)
    w = torch.randint(-128, 128, (features, channels, g.R, g.S), dtype=torch.int8)
    bias = torch.randint(-1000, 1000, (features,), dtype=torch.int32)
    multiplier = torch.randint(2**30, 2**31 - 1, (features,), dtype=torch.int32)
    shift = torch.randint(6, 12, (features,), dtype=torch.int32)
    y = torch.full((g.N, g.K, g.P, g.Q, outputs), 77, dtype=torch.int32 if flags & RAW else torch.int8)
    operands = {
        "x": packed_x(x, outputs),
        "w": packed_w(w, outputs, inputs),
        "scale": torch.stack([bias, multiplier, shift]).view(3, g.K, outputs).transpose(0, 1).contiguous(),
        "y": y,
    }
    pointers = {name: tensor.data_ptr() for name, tensor in operands.items()}
    pointers |= {"x1": pointers["x"], "y1": pointers["y"]}
    trips = simulated("conv_int8", board).run(**pointers, **g.arguments(), flags=flags, lowest=lowest)
    return unpacked_y(y), trips, by_torch(g, x.double(), w.double()).long(), (bias, multiplier, shift)


@pytest.mark.parametrize("board", boards.names())
@pytest.mark.parametrize("g", GEOMETRIES, ids=str)
def test_sums_are_exact_and_the_trips_are_the_modelled_ones(simulated, board: str, g: Geometry):
    y, trips, exact, _ = run(simulated, board, g, RAW)
    assert torch.equal(y.long(), exact)
    assert trips == conv_int8(boards.board(board), g, raw=True).trips


@pytest.mark.parametrize("board", boards.names())
@pytest.mark.parametrize("lowest", [-128, 0])
def test_requantises_to_the_nearest(simulated, board: str, lowest: int):
    g = GEOMETRIES[0]
    y, trips, exact, constants = run(simulated, board, g, 0, lowest)
    bias, multiplier, shift = (constant.long().view(1, -1, 1, 1) for constant in constants)
    nearest = ((exact + bias) * multiplier + (1 << (30 + shift))) >> (31 + shift)
    assert torch.equal(y.long(), nearest.clamp(lowest, 127))
    assert trips == conv_int8(boards.board(board), g).trips


@pytest.mark.parametrize("board", boards.names())
@pytest.mark.parametrize("flags", [0, BIAS, BIAS | RELU])
def test_fp32_is_as_close_to_fp64_as_torch_is_and_makes_the_modelled_trips(simulated, board: str, flags: int):
    array = boards.board(board).sizes["conv_fp32"]
    outputs, inputs = array["outputs"], array["inputs"]
    for g in GEOMETRIES:
        torch.manual_seed(g.H)
        x = torch.randn(g.N, g.C * inputs, g.H, g.W)
        w, bias = torch.randn(g.K * outputs, g.C * inputs, g.R, g.S), torch.randn(g.K * outputs)
        y = torch.full((g.N, g.K, g.P, g.Q, outputs), torch.nan)
        operands = {"x": packed_x(x, outputs), "w": packed_w(w, outputs, inputs), "bias": bias, "y": y}
        pointers = {name: tensor.data_ptr() for name, tensor in operands.items()}
        trips = simulated("conv_fp32", board).run(**pointers, **g.arguments(), flags=flags)
        assert trips == conv_fp32(boards.board(board), g, bool(flags & BIAS)).trips

        results = {}
        for dtype in (torch.float32, torch.float64):
            result = by_torch(g, x.to(dtype), w.to(dtype), bias.to(dtype) if flags & BIAS else None)
            results[dtype] = (result.relu() if flags & RELU else result).double()
        if g.N:
            exact = results[torch.float64]
            allowed = 2 * (results[torch.float32] - exact).abs().max()
            allowed = max(allowed, 4 * torch.finfo(torch.float32).eps * exact.abs().max())
            assert (unpacked_y(y).double() - exact).abs().max() <= allowed, g


@pytest.mark.parametrize(
    "g",
    [
        Geometry(2, 14, 14, 4, 4, 3, 3, padding_h=1, padding_w=1),
        Geometry(2, 14, 14, 4, 4, 3, 3, 2, 2, 1, 1),
        Geometry(1, 28, 28, 4, 2),
        Geometry(4, 7, 7, 8, 2, 3, 3, padding_h=1, padding_w=1),
    ],
    ids=str,
)
def test_planned_tiles_of_scaled_down_resnet_layers_are_exact(simulated, g: Geometry):
    tiled = planned("conv_int8", boards.board("pynq-z2"), g)
    y, trips, exact, _ = run(simulated, "pynq-z2", tiled, RAW)
    assert torch.equal(y.long(), exact)
    assert trips == conv_int8(boards.board("pynq-z2"), tiled, raw=True).trips


def test_groups_are_launches_on_parts_of_the_channels(simulated):
    """Two groups of one word of channels into two blocks each, and two images, so that a group's images lie apart."""
    array = boards.board("pynq-z2").sizes["conv_fp32"]
    outputs, inputs = array["outputs"], array["inputs"]
    g = Geometry(2, 6, 5, 1, 2, 3, 3, padding_h=1, padding_w=1, tile_n=1, tile_p=3, tile_q=5, C_total=2, K_total=4)
    torch.manual_seed(0)
    x, w = (
        torch.randint(-9, 9, (2, 2 * inputs, 6, 5)).float(),
        torch.randint(-9, 9, (4 * outputs, inputs, 3, 3)).float(),
    )
    y = torch.full((2, 4, g.P, g.Q, outputs), torch.nan)
    x_packed = packed_x(x, outputs)
    for group in range(2):
        w_packed = packed_w(w[group * 2 * outputs :][: 2 * outputs], outputs, inputs)
        simulated("conv_fp32", "pynq-z2").run(
            x=x_packed[:, group * inputs // outputs :].data_ptr(),
            w=w_packed.data_ptr(),
            bias=0,
            y=y[:, group * 2 :].data_ptr(),
            **g.arguments(),
            flags=0,
        )
    assert torch.equal(unpacked_y(y), torch.nn.functional.conv2d(x, w, None, padding=1, groups=2))


@pytest.mark.parametrize("name", boards.names())
@pytest.mark.parametrize("engine", ENGINES)
def test_planned_tiles_fit_the_buffers(name: str, engine: str):
    board = boards.board(name)
    array = board.sizes[engine]
    for size, words in ((56, 4), (7, 32), (1, 1), (224, 1)):
        for taps in (1, 3, 7):
            g = planned(
                engine, board, Geometry(8, size, size, words, 4, taps, taps, padding_h=taps // 2, padding_w=taps // 2)
            )
            assert g.patch_words() <= array["input_words"]
            assert 1 <= g.tile_n * g.tile_p * g.tile_q <= array["tile_pixels"]


def test_a_layer_whose_pixel_does_not_fit_says_how_much_it_needs():
    with pytest.raises(ValueError, match="one output pixel needs 9216 words of input on the chip, pynq-z2 has 8192"):
        planned("conv_int8", boards.board("pynq-z2"), Geometry(1, 3, 3, 1024, 1, 3, 3))
