"""The reduction kernel, C-simulated: torch's sums in the order of the ranks, to the bit, and the modelled trips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from accelops.targets.fpga import boards, model

WIRE_BF16, OUT_BF16 = 1, 2


def lanes(board: boards.Board, bf16: int) -> int:
    return board.float_lanes * (2 if bf16 else 1)


def layout(board: boards.Board, numels: list[int], ranks: int, flags: int) -> tuple[np.ndarray, int, int]:
    """Descriptors of buckets one after the other, each with all its ranks; elements of input and output."""
    wire, out = lanes(board, flags & WIRE_BF16), lanes(board, flags & OUT_BF16)
    words, flat_beats, out_beats = [], 0, 0
    for numel in numels:
        row = -(-numel // wire)
        words += [flat_beats, row, out_beats, numel]
        flat_beats += row * ranks
        out_beats += -(-numel // out)
    return np.array(words or [0], np.uint32), flat_beats * wire, out_beats * out


def check(simulated, name: str, numels: list[int], ranks: int, flags: int, scale: float = 1 / 3) -> None:
    board = boards.board(name)
    words, flat_numel, out_numel = layout(board, numels, ranks, flags)
    wire_dtype, out_dtype = (torch.bfloat16 if flags & bit else torch.float32 for bit in (WIRE_BF16, OUT_BF16))
    torch.manual_seed(len(numels) + ranks)
    flats = torch.randn(flat_numel).to(wire_dtype)
    out = torch.full((out_numel,), torch.nan, dtype=out_dtype)
    trips = simulated("reduce", name).run(
        **{f"flats{i}": flats.data_ptr() for i in range(4)},
        **{f"out{i}": out.data_ptr() for i in range(4)},
        descriptors=words.ctypes.data,
        buckets=len(numels),
        ranks=ranks,
        scale=scale,
        flags=flags,
    )
    assert trips == model.reduce(board, numels, ranks, bool(flags & WIRE_BF16), bool(flags & OUT_BF16)).trips
    if ranks == 0:
        return
    wire, out_lanes = lanes(board, flags & WIRE_BF16), lanes(board, flags & OUT_BF16)
    for flat, row, first, numel in words.reshape(-1, 4).tolist() if numels else []:
        rows = flats[flat * wire : (flat + row * ranks) * wire].view(ranks, -1)[:, :numel].float()
        total = rows[0].clone()
        for further in rows[1:]:
            total += further
        got = out[first * out_lanes : first * out_lanes + numel]
        assert torch.equal(got, (total * np.float32(scale)).to(out_dtype)), (numels, ranks, flags)


@pytest.mark.parametrize("board", boards.names())
@pytest.mark.parametrize("flags", [0, WIRE_BF16, OUT_BF16, WIRE_BF16 | OUT_BF16])
def test_equals_torch_to_the_bit_and_makes_the_modelled_trips(simulated, board: str, flags: int):
    tile = boards.board(board).sizes["reduce"]["tile_beats"] * boards.board(board).float_lanes
    for numels in ([], [0], [1], [5, 0, 130, 64], [6 * tile + 3, 17, tile]):
        for ranks in (0, 1, 2, 5):
            check(simulated, board, numels, ranks, flags)


def test_rounds_once_from_fp32_sums(simulated):
    """1 + 2^-9 is no bf16: rounded after each addition, 256 of them would stay 1."""
    board = boards.board("pynq-z2")
    values = torch.tensor([1.0] + [2.0**-9] * 256).bfloat16()
    flats = values.repeat_interleave(2 * board.float_lanes)
    out = torch.zeros(2 * board.float_lanes, dtype=torch.bfloat16)
    words = np.array([0, 1, 0, len(out)], np.uint32)
    simulated("reduce", "pynq-z2").run(
        **{f"flats{i}": flats.data_ptr() for i in range(4)},
        **{f"out{i}": out.data_ptr() for i in range(4)},
        descriptors=words.ctypes.data,
        buckets=1,
        ranks=len(values),
        scale=1.0,
        flags=WIRE_BF16 | OUT_BF16,
    )
    assert (out == 1.5).all()


@pytest.mark.parametrize("board", boards.names())
def test_reduce_of_up_to_eight_ranks_is_modelled_to_reach_85_percent_of_memory_bandwidth(board: str):
    for ranks in (2, 4, 8):
        for flags in (0, WIRE_BF16, WIRE_BF16 | OUT_BF16):
            bf16 = bool(flags & WIRE_BF16), bool(flags & OUT_BF16)
            assert model.reduce(boards.board(board), [6_553_600] * 4, ranks, *bf16).bandwidth_fraction >= 0.85
