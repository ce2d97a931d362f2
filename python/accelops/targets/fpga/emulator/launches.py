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
RAW = 1  # of conv_int8
BIAS = 1  # of conv_fp32
DESCRIPTOR_WORDS = 4


@dataclass(frozen=True)
class Reach:
    """Ranges by the pointer that leads to them. `in_place`: which read each write may coincide with, byte for byte."""

    reads: dict[str, list[Range]]
    writes: dict[str, list[Range]]
    in_place: dict[str, str]


@dataclass(frozen=True)
class Meaning:
    reach: Reach
    estimate: Estimate


def meaning(top: str, board: Board, arguments: Arguments, ddr: Ddr) -> Meaning:
    """Of a launch that checks.objections finds nothing wrong with."""
    if top == "adam":
        return _adam(board, arguments)
    return _reduce(board, arguments, ddr) if top == "reduce" else _conv(top, board, arguments)


def _array(arguments: Arguments, name: str, nbytes: int) -> list[Range]:
    address = int(arguments[name])
    return [(address, address + nbytes)] if nbytes else []


def _adam(board: Board, a: Arguments) -> Meaning:
    amsgrad, bf16 = bool(a["flags"] & AMSGRAD), bool(a["flags"] & BF16)
    floats = ceil_div(a["numel"], board.float_lanes) * board.beat_bytes
    halves = ceil_div(a["numel"], 2 * board.float_lanes) * board.beat_bytes
    state = {"weight": floats, "exp_avg": floats, "exp_avg_sq": floats, "max_exp_avg_sq": floats if amsgrad else 0}
    sizes = {"grad": halves if bf16 else floats, **state}
    written = {f"{name}_out": nbytes for name, nbytes in state.items()} | {"rounded_out": halves if bf16 else 0}
    reach = Reach(
        {name: _array(a, name, nbytes) for name, nbytes in sizes.items()},
        {name: _array(a, name, nbytes) for name, nbytes in written.items()},
        {f"{name}_out": name for name in state},
    )
    return Meaning(reach, adam(board, a["numel"], amsgrad, bf16))


def _reduce(board: Board, a: Arguments, ddr: Ddr) -> Meaning:
    wire_bf16, out_bf16 = bool(a["flags"] & WIRE_BF16), bool(a["flags"] & OUT_BF16)
    lanes, out_lanes = (board.float_lanes * (2 if bf16 else 1) for bf16 in (wire_bf16, out_bf16))
    buckets = a["buckets"] if a["ranks"] else 0
    described = _array(a, "descriptors", 4 * DESCRIPTOR_WORDS * buckets)
    inside = described and ddr.holding(*described[0])
    words = ddr.words(a["descriptors"], DESCRIPTOR_WORDS * buckets).reshape(-1, 4).tolist() if inside else []
    reads, writes = [], []
    for flat, stride, out, numel in words:
        row, to = ceil_div(numel, lanes) * board.beat_bytes, a["out0"] + out * board.beat_bytes
        if not numel:
            continue
        starts = (a["flats0"] + (flat + rank * stride) * board.beat_bytes for rank in range(a["ranks"]))
        reads += [(start, start + row) for start in starts]
        writes.append((to, to + ceil_div(numel, out_lanes) * board.beat_bytes))
    reach = Reach({"descriptors": described, "flats0": reads}, {"out0": writes}, {})
    return Meaning(reach, reduce(board, [numel for *_, numel in words], a["ranks"], wire_bf16, out_bf16))


def geometry(a: Arguments) -> Geometry:
    """P and Q as they are given."""
    return Geometry(**{f.name: a[f.name] for f in fields(Geometry) if f.name in a}, rows=a["P"], columns=a["Q"])


def empty(a: Arguments) -> bool:
    """A launch of nothing, which does nothing whatever its other arguments are."""
    return 0 in (a["N"], a["P"], a["Q"], a["K"])


def _conv(top: str, board: Board, a: Arguments) -> Meaning:
    g, array = geometry(a), board.sizes[top]
    if empty(a):
        g = Geometry(0, 1, 1, 1, 0, tile_n=1, tile_p=1, tile_q=1)
    element, block = ENGINES[top] // 8, array["outputs"]
    blocks = array["inputs"] // block  # of a word of input channels
    flagged = bool(a["flags"] & 1)
    out_element = 4 if top == "conv_fp32" or flagged else 1
    constants = {"bias": 4 * block * flagged} if top == "conv_fp32" else {"scale": 12 * block * (not flagged)}
    planes = {
        "x": (g.C, g.C_total, g.H * g.W * blocks * block * element),
        "y": (g.K, g.K_total, g.P * g.Q * block * out_element),
    }
    images = {}
    for name, (used, total, plane) in planes.items():
        first = range(a[name], a[name] + g.N * total * plane, total * plane) if total * plane else ()
        images[name] = [] if not used else [(start, start + used * plane) for start in first]
    once = {"w": g.sets * block * blocks * block * element} | {name: g.K * size for name, size in constants.items()}
    reads = {"x": images["x"]} | {name: _array(a, name, size) for name, size in once.items()}
    cost = conv_fp32(board, g, flagged) if top == "conv_fp32" else conv_int8(board, g, flagged)
    return Meaning(Reach(reads, {"y": images["y"]}, {}), cost)
