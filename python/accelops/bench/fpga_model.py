"""What convolutions of real networks cost on FPGA boards by the cycle model: *modelled*, nothing here ran on a board.

`rows(network)` has a row for each layer, engine and board: launches, cycles, bytes, latency, and the efficiency, which is the
layer's own multiplications over what the array could have done in that time; channels that only pad count for nothing, so
that depthwise layers, and the first, show what they are. Groups that fit one block of channels share a launch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod

from accelops.kernels.conv.spec import ConvSpec
from accelops.targets.fpga import boards
from accelops.targets.fpga.boards import Board
from accelops.targets.fpga.convolution import ENGINES, Geometry, conv_fp32, conv_int8, planned
from accelops.targets.fpga.model import Estimate, ceil_div

from .suites import conv_cases

ESTIMATE = {"conv_int8": conv_int8, "conv_fp32": conv_fp32}


@dataclass(frozen=True)
class Modelled:
    """One layer, met `multiplicity` times in the network. `bound`: the stage with the most trips, or memory."""

    network: str
    layer: str
    multiplicity: int
    engine: str
    board: str
    launches: int
    cycles: int
    bytes: int
    milliseconds: float
    efficiency: float
    bound: str


def rows(network: str, batch: int = 8) -> list[Modelled]:
    cases = [case for case in conv_cases(network, batch) if case.spec.direction == "fprop"]
    return [
        _row(network, case.name, case.multiplicity, case.spec, engine, boards.board(name))
        for case in cases
        for engine in ENGINES
        for name in boards.names()
    ]


def launch(spec: ConvSpec, engine: str, board: Board) -> tuple[Geometry, int]:
    """A launch of a forward 2D convolution, with its tiles, and how many such launches there are."""
    array = board.sizes[engine]
    (n, channels, h, w), (features, _, r, s) = spec.input, spec.weight
    inputs, outputs = channels // spec.groups, features // spec.groups
    merged = min(spec.groups, max(1, array["outputs"] // max(inputs, outputs)))
    words, blocks = ceil_div(merged * inputs, array["inputs"]), ceil_div(merged * outputs, array["outputs"])
    count = ceil_div(spec.groups, merged)
    moves = (*spec.stride, *spec.padding, *spec.dilation)
    g = Geometry(n, h, w, words, blocks, r, s, *moves, C_total=count * words, K_total=count * blocks)
    return planned(engine, board, g), count


def _row(network: str, layer: str, multiplicity: int, spec: ConvSpec, engine: str, board: Board) -> Modelled:
    g, launches = launch(spec, engine, board)
    estimate = ESTIMATE[engine](board, g)
    array = board.sizes[engine]
    peak = array["inputs"] * array["outputs"] * board.clock_mhz * 1e6
    seconds = launches * estimate.seconds
    return Modelled(
        network,
        layer,
        multiplicity,
        engine,
        board.name,
        launches,
        launches * estimate.cycles,
        launches * estimate.bytes,
        round(seconds * 1e3, 4),
        round(_products(spec, g) / peak / seconds, 4) if seconds else 0.0,
        _bound(estimate),
    )


def _products(spec: ConvSpec, g: Geometry) -> int:
    """Multiplications of the layer itself."""
    return g.N * g.P * g.Q * prod(spec.weight)


def _bound(estimate: Estimate) -> str:
    if estimate.seconds > estimate.cycles / (estimate.board.clock_mhz * 1e6):
        return "memory"
    return max(estimate.trips, key=lambda stage: max(estimate.trips[stage]))


def table(modelled: list[Modelled]) -> str:
    """As text, a line for each row."""
    names = list(asdict(modelled[0]))
    cells = [names, *([str(value) for value in asdict(row).values()] for row in modelled)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )
