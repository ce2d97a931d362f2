"""What a board cannot tell: it hangs, corrupts memory or computes from stale bytes where this says what is wrong.

Before a launch: arguments that the kernel cannot work with, addresses that are not at a beat, ranges that lie in no
buffer, inputs that were never flushed, outputs that overlap what is read. After it: writes behind a buffer's end.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..boards import Board
from ..convolution import ENGINES
from ..model import Estimate
from ..registers import Kernel
from .ddr import Ddr
from .faults import Refused
from .launches import Reach, empty, estimate, geometry, reach
from .slot import Arguments

MOST_POSITION = 1 << 30  # of a row or column, its sign and sums with others included
MOST_RANGES = 1 << 20  # of memory in one launch, that are worth looking at one by one


@dataclass(frozen=True)
class Meaning:
    """Of a launch: what it touches, and what it is modelled to cost."""

    reach: Reach
    estimate: Estimate


def checked(kernel: Kernel, board: Board, arguments: Arguments, ddr: Ddr) -> Meaning:
    """What the launch means. Raises Refused with everything that is wrong with it."""
    wrong = objections(kernel, board, arguments)
    if not wrong:
        touched = reach(kernel.top, board, arguments, ddr)
        wrong = [*_memory(touched, ddr), *_overlaps(touched)]
        if not wrong:
            return Meaning(touched, estimate(kernel.top, board, arguments, ddr))
    raise Refused(f"{kernel.top}: {'; '.join(wrong)}")


def objections(kernel: Kernel, board: Board, arguments: Arguments) -> list[str]:
    """Against the arguments themselves, wherever memory lies."""
    wrong = []
    for a in kernel.arguments:
        beat = 4 if a.name == "descriptors" else board.beat_bytes
        if a.pointer and int(arguments[a.name]) % beat:
            wrong.append(f"{a.name}={int(arguments[a.name]):#x} is not at a beat of {beat} bytes")
    for ports in _same_addresses(kernel.top, board):
        if len({arguments[port] for port in ports}) > 1:
            wrong.append(f"{', '.join(ports)} are not one address")
    if kernel.top == "reduce" and arguments["buckets"] * arguments["ranks"] > MOST_RANGES:
        wrong.append(f"{arguments['buckets']} buckets of {arguments['ranks']} ranks are not emulated")
    if kernel.top in ENGINES:
        wrong += _conv_objections(kernel.top, board, arguments)
    return wrong


def _same_addresses(top: str, board: Board) -> list[tuple[str, ...]]:
    """Pointers to the same memory through several ports."""
    if top == "reduce":
        return [tuple(f"{name}{i}" for i in range(4)) for name in ("flats", "out")]
    two_lanes = top == "conv_int8" and board.sizes[top]["ports"] > 1
    return [("x", "x1"), ("y", "y1")] if two_lanes else []


def _conv_objections(engine: str, board: Board, a: Arguments) -> list[str]:
    g, array = geometry(a), board.sizes[engine]
    at_least_one = ("C", "R", "S", "stride_h", "stride_w", "dilation_h", "dilation_w", "tile_n", "tile_p", "tile_q")
    if empty(a):
        return []
    wrong = [f"{name}=0" for name in at_least_one if a[name] == 0]
    if wrong:
        return wrong
    if max(g.N, g.P, g.Q) > MOST_RANGES:
        return [f"N={g.N}, P={g.P}, Q={g.Q} are not emulated"]
    if g.tile_n * g.tile_p * g.tile_q > array["tile_pixels"]:
        wrong.append(f"a tile of {g.tile_n}x{g.tile_p}x{g.tile_q} pixels is more than {array['tile_pixels']}")
    if g.patch_words() > array["input_words"]:
        wrong.append(f"a tile's inputs take {g.patch_words()} words, the buffer has {array['input_words']}")
    for name, last in (
        ("row", (g.P - 1) * g.stride_h + (g.R - 1) * g.dilation_h + abs(g.padding_h)),
        ("column", (g.Q - 1) * g.stride_w + (g.S - 1) * g.dilation_w + abs(g.padding_w)),
    ):
        if last >= MOST_POSITION:
            wrong.append(f"the last {name} of the input would be {last}: the kernel counts in 32 bits")
    if g.C_total < g.C or g.K_total < g.K:
        wrong.append(f"C={g.C} of C_total={g.C_total}, K={g.K} of K_total={g.K_total}: a part is more than all")
    return wrong


def _memory(reach: Reach, ddr: Ddr) -> list[str]:
    wrong = []
    for name, ranges in (reach.reads | reach.writes).items():
        for start, end in ranges:
            buffer = ddr.holding(start, end)
            if buffer is None:
                wrong.append(
                    f"{name} reaches from {start:#x} to {end:#x}, which is not inside one buffer ({_near(start, ddr)})"
                )
                break
            if buffer.dirty:
                wrong.append(f"{name}: the buffer at {buffer.address:#x} was written and not flushed")
                break
            if name in reach.reads and not buffer.defined:
                wrong.append(f"{name}: the buffer at {buffer.address:#x} is read, and nothing was ever flushed into it")
                break
    return wrong


def _near(address: int, ddr: Ddr) -> str:
    before = [buffer for buffer in ddr.buffers if buffer.address <= address]
    if not before:
        return "there is none before it"
    return f"the one before it reaches from {before[-1].address:#x} to {before[-1].end:#x}"


def _overlaps(reach: Reach) -> list[str]:
    """Writes over reads, and over other writes. A sweep over all ranges by where they begin; two reads may overlap."""
    named = [(*r, name, False) for name, ranges in reach.reads.items() for r in ranges]
    named += [(*r, name, True) for name, ranges in reach.writes.items() for r in ranges]
    wrong: dict[str, None] = {}
    open_ranges: list[tuple[int, int, str, bool]] = []
    for range_ in sorted(named):
        open_ranges = [other for other in open_ranges if other[1] > range_[0]]
        for other in open_ranges:
            if (range_[3] or other[3]) and not _stepped_in_place(range_, other, reach):
                wrong[f"{range_[2]} overlaps {other[2]} at {range_[0]:#x}"] = None
        open_ranges.append(range_)
    return list(wrong)


def _stepped_in_place(one: tuple[int, int, str, bool], other: tuple[int, int, str, bool], reach: Reach) -> bool:
    same = one[:2] == other[:2]
    return same and (reach.in_place.get(one[2]) == other[2] or reach.in_place.get(other[2]) == one[2])


def after(kernel: Kernel, ddr: Ddr) -> list[str]:
    """What a launch has done that it should not: each buffer behind whose end it wrote."""
    return [
        f"{kernel.top} wrote behind the end of the buffer at {buffer.address:#x} ({buffer.nbytes} bytes)"
        for buffer in ddr.trespassed()
    ]
