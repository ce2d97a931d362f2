"""How long a kernel takes on a board, by arithmetic: *modelled*, never measured.

Trips of every pipelined loop (II=1: a trip is a cycle) in closed form, equal to what C-simulation counts. Stages of a
DATAFLOW region overlap, so the longest decides; a port moves one beat per cycle and direction; a row that is read begins
with the latency of memory; all bytes together take at least bytes / the peak bandwidth of memory. Not modelled: what DDR
loses to refresh and turning around, and stalls of one stage for another beyond the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .boards import Board
from .registers import kernels

PIPELINE = (
    100  # assumed: cycles to fill and drain the pipelines of a launch; a square root and a quotient are 60 of them
)


@dataclass(frozen=True)
class Estimate:
    """Modelled cost of a launch. `trips`: per stage, one number an engine. `cycles` of the kernel; `bytes` moved."""

    board: Board
    trips: dict[str, tuple[int, ...]]
    cycles: int
    bytes: int

    @property
    def seconds(self) -> float:
        return max(self.cycles / (self.board.clock_mhz * 1e6), self.bytes / self._bandwidth)

    @property
    def bandwidth_fraction(self) -> float:
        """Of the peak bandwidth of memory that one kernel reaches: one bank's."""
        return self.bytes / self.seconds / self._bandwidth

    @property
    def _bandwidth(self) -> float:
        return self.board.ddr.bytes_per_second / self.board.ddr.banks


def ceil_div(n: int, d: int) -> int:
    return -(-n // d)


def adam(board: Board, numel: int, amsgrad: bool = False, bf16: bool = False) -> Estimate:
    """One step over `numel` elements; `bf16`: gradient and rounded parameter, beside an fp32 master."""
    beats, halves = ceil_div(numel, board.float_lanes), ceil_div(numel, 2 * board.float_lanes)
    maxima = beats if amsgrad else 0
    state = {f"{way}_{name}": beats for name in ("weight", "exp_avg", "exp_avg_sq") for way in ("load", "store")}
    trips = state | {
        "load_grad": halves if bf16 else beats,
        "load_max": maxima,
        "step": beats,
        "store_max": maxima,
        "store_rounded": halves if bf16 else 0,
    }
    cycles = max(beats, *_port_beats(board, trips)) + PIPELINE + board.burst.read_latency_cycles
    moved = sum(trips.values()) - trips["step"]
    return Estimate(board, _ordered("adam", trips), cycles, moved * board.beat_bytes)


def _port_beats(board: Board, trips: dict[str, int]) -> list[int]:
    """Beats of each port in each direction: bundle i is on port i modulo the number of ports."""
    bundle = {"grad": 0, "rounded": 0, "weight": 1, "exp_avg": 2, "exp_avg_sq": 3, "max": 4}
    load = {}
    for stage, count in trips.items():
        way, _, name = stage.partition("_")
        if name in bundle:
            key = (bundle[name] % board.ports.number, way)
            load[key] = load.get(key, 0) + count
    return list(load.values())


def reduce(
    board: Board, numels: Sequence[int], ranks: int, wire_bf16: bool = False, out_bf16: bool = False
) -> Estimate:
    """Buckets of `numels` elements from each of `ranks` summed into one: the tiles in turn to one engine a port."""
    engines, sizes = board.ports.number, board.sizes["reduce"]
    lanes, out_lanes = (board.float_lanes * (2 if bf16 else 1) for bf16 in (wire_bf16, out_bf16))
    tile = sizes["tile_beats"] * lanes
    tiles = [min(tile, numel - at) for numel in numels for at in range(0, numel, tile)] if ranks else []
    trips = {"schedule": [0] * engines} | {s: [0] * engines for s in ("load", "accumulate", "round", "store")}
    trips["schedule"][0] = 4 * len(numels) * bool(ranks) + len(tiles)
    latency = [0] * engines
    for i, numel in enumerate(tiles):
        row, engine = ceil_div(numel, lanes), i % engines
        trips["load"][engine] += ranks * row
        trips["accumulate"][engine] += ranks * max(row, sizes["adder_cycles"])
        trips["round"][engine] += ceil_div(numel, board.float_lanes)
        trips["store"][engine] += ceil_div(numel, out_lanes)
        latency[engine] += ranks * board.burst.read_latency_cycles
    stages = [count for stage in trips.values() for count in stage]
    reading = [beats + waited for beats, waited in zip(trips["load"], latency, strict=True)]
    moved = (sum(trips["load"]) + sum(trips["store"])) * board.beat_bytes + 16 * len(numels) * bool(ranks)
    counted = {stage: tuple(count) for stage, count in trips.items()}
    return Estimate(board, counted, max(stages + reading) + PIPELINE, moved)


def _ordered(top: str, trips: dict[str, int]) -> dict[str, tuple[int, ...]]:
    return {stage: (trips[stage],) for stage in kernels()[top].stages}
