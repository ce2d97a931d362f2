"""What the arguments of a launch mean, in closed form: the bytes it reads and writes (Reach), what it costs by the cycle
model. Written beside the kernels in hls/, which say the same in C++.

A Reach is what is touched, to the beat; of a convolution's x it is whole images, of which a stride may skip rows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..boards import Board
from ..convolution import ENGINES, Geometry, conv_fp32, conv_int8
from ..model import Estimate, adam, ceil_div, reduce
from .ddr import Ddr
from .slot import Arguments

Range = tuple[int, int]  # addresses: the first byte, and the one behind the last

AMSGRAD, BF16 = 1, 2  # flags of adam
WIRE_BF16, OUT_BF16 = 1, 2  # of reduce
DESCRIPTOR_WORDS = 4


@dataclass(frozen=True)
class Reach:
    """Ranges by the pointer that leads to them. `in_place`: which read each write may coincide with, byte for byte."""

    reads: dict[str, list[Range]]
    writes: dict[str, list[Range]]
    in_place: dict[str, str]


def reach(top: str, board: Board, arguments: Arguments, ddr: Ddr) -> Reach:
    """Of a launch that checks.objections finds nothing wrong with."""
    if top == "adam":
        return _adam(board, arguments)
    return _reduce(board, arguments, ddr) if top == "reduce" else _conv(top, board, arguments)


def estimate(top: str, board: Board, a: Arguments, ddr: Ddr) -> Estimate:
    """Of a launch that stays within its buffers."""
    first, second = bool(a["flags"] & 1), bool(a["flags"] & 2)
    if top == "adam":
        return adam(board, a["numel"], amsgrad=first, bf16=second)
    if top == "reduce":
        numels = [numel for *_, numel in _descriptors(a, ddr)]
        return reduce(board, numels, a["ranks"], wire_bf16=first, out_bf16=second)
    return conv_fp32(board, geometry(a), bias=first) if top == "conv_fp32" else conv_int8(board, geometry(a), raw=first)


def _array(arguments: Arguments, name: str, nbytes: int) -> list[Range]:
    address = int(arguments[name])
    return [(address, address + nbytes)] if nbytes else []


def _adam(board: Board, a: Arguments) -> Reach:
    amsgrad, bf16 = bool(a["flags"] & AMSGRAD), bool(a["flags"] & BF16)
    floats = ceil_div(a["numel"], board.float_lanes) * board.beat_bytes
    halves = ceil_div(a["numel"], 2 * board.float_lanes) * board.beat_bytes
    state = {"weight": floats, "exp_avg": floats, "exp_avg_sq": floats, "max_exp_avg_sq": floats if amsgrad else 0}
    sizes = {"grad": halves if bf16 else floats, **state}
    written = {f"{name}_out": nbytes for name, nbytes in state.items()} | {"rounded_out": halves if bf16 else 0}
    return Reach(
        {name: _array(a, name, nbytes) for name, nbytes in sizes.items()},
        {name: _array(a, name, nbytes) for name, nbytes in written.items()},
        {f"{name}_out": name for name in state},
    )


def _reduce(board: Board, a: Arguments, ddr: Ddr) -> Reach:
    wire_bf16, out_bf16 = bool(a["flags"] & WIRE_BF16), bool(a["flags"] & OUT_BF16)
    lanes, out_lanes = (board.float_lanes * (2 if bf16 else 1) for bf16 in (wire_bf16, out_bf16))
    reads, writes = [], []
    for flat, stride, out, numel in _descriptors(a, ddr):
        row, to = ceil_div(numel, lanes) * board.beat_bytes, a["out0"] + out * board.beat_bytes
        if not numel:
            continue
        starts = (a["flats0"] + (flat + rank * stride) * board.beat_bytes for rank in range(a["ranks"]))
        reads += [(start, start + row) for start in starts]
        writes.append((to, to + ceil_div(numel, out_lanes) * board.beat_bytes))
    return Reach({"descriptors": _described(a), "flats0": reads}, {"out0": writes}, {})


def _described(a: Arguments) -> list[Range]:
    return _array(a, "descriptors", 4 * DESCRIPTOR_WORDS * a["buckets"] if a["ranks"] else 0)


def _descriptors(a: Arguments, ddr: Ddr) -> list[list[int]]:
    """As they are in memory; none where they are in no buffer."""
    inside = [range_ for range_ in _described(a) if ddr.holding(*range_)]
    return [row for start, end in inside for row in ddr.words(start, (end - start) // 4).reshape(-1, 4).tolist()]


def empty(a: Arguments) -> bool:
    """A convolution of nothing, which does nothing whatever its other arguments are."""
    return 0 in (a["N"], a["P"], a["Q"], a["K"])


def geometry(a: Arguments) -> Geometry:
    """P and Q as they are given; the kernels take a padding as signed."""
    if empty(a):
        return Geometry(0, 1, 1, 1, 0, tile_n=1, tile_p=1, tile_q=1)
    signed = {name: a[name] - (a[name] >> 31 << 32) for name in ("padding_h", "padding_w")}
    return Geometry(
        **{f.name: a[f.name] for f in fields(Geometry) if f.name in a} | signed, rows=a["P"], columns=a["Q"]
    )


def _conv(top: str, board: Board, a: Arguments) -> Reach:
    g, array = geometry(a), board.sizes[top]
    element, block = ENGINES[top] // 8, array["outputs"]
    blocks = array["inputs"] // block  # of a word of input channels
    flagged = bool(a["flags"] & 1)
    out_element = 4 if top == "conv_fp32" or flagged else 1
    constants = {"bias": 4 * block * flagged} if top == "conv_fp32" else {"scale": 12 * block * (not flagged)}
    once = {"w": g.sets * block * blocks * block * element} | {name: g.K * size for name, size in constants.items()}
    x = _images(a["x"], g.N, g.C, g.C_total, g.H * g.W * blocks * block * element)
    y = _images(a["y"], g.N, g.K, g.K_total, g.P * g.Q * block * out_element)
    return Reach({"x": x} | {name: _array(a, name, size) for name, size in once.items()}, {"y": y}, {})


def _images(address: int, images: int, used: int, total: int, plane: int) -> list[Range]:
    """Of each image the first `used` of its `total` planes."""
    if 0 in (images, used, plane):
        return []
    if used == total:
        return [(address, address + images * total * plane)]
    starts = range(address, address + images * total * plane, total * plane)
    return [(start, start + used * plane) for start in starts]
