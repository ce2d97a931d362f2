"""What the emulated board takes of a convolution's geometry and operands, and what it refuses by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accelops.targets.fpga import boards
from accelops.targets.fpga.convolution import Geometry
from accelops.targets.fpga.emulator.faults import Refused
from accelops.targets.fpga.emulator.machine import Machine

from .host import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(Machine(boards.board("pynq-z2")), tmp_path, ("conv_fp32", "conv_int8"))


def convolution(host: Host, engine: str, g: Geometry, flags: int) -> dict[str, int | float]:
    """Its operands exactly as long as they must be."""
    array, element = host.board.sizes[engine], 4 if engine == "conv_fp32" else 1
    block, words = array["outputs"], array["inputs"]
    images, sets = g.N * (g.C_total or g.C) * g.H * g.W * words, g.sets * block * words
    out = 4 if engine == "conv_fp32" or flags else 1
    operands = {
        "x": host.buffer(np.ones(images * element, np.uint8)),
        "w": host.buffer(np.ones(sets * element, np.uint8)),
        "y": host.machine.allocate(out * g.N * (g.K_total or g.K) * g.P * g.Q * block),
    }
    if engine == "conv_fp32" and flags & 1:
        operands["bias"] = host.buffer(np.zeros(4 * g.K * block, np.uint8))
    if engine == "conv_int8" and not flags:
        operands["scale"] = host.buffer(np.ones(12 * g.K * block, np.uint8))
    if engine == "conv_int8":
        operands |= {"x1": operands["x"], "y1": operands["y"]}
    return operands | g.arguments() | {"flags": flags}


SMALL = Geometry(2, 4, 5, 1, 2, 3, 3, padding_h=1, padding_w=1, tile_n=1, tile_p=2, tile_q=5)


@pytest.mark.parametrize("name", ["pynq-z2", "zcu104"])
@pytest.mark.parametrize("engine", ["conv_fp32", "conv_int8"])
@pytest.mark.parametrize("flags", [0, 1])
def test_operands_of_a_convolution_as_long_as_they_must_be_are_taken_and_a_beat_less_is_not(
    tmp_path: Path, name: str, engine: str, flags: int
):
    host = Host(Machine(boards.board(name)), tmp_path, (engine,))
    arguments = convolution(host, engine, SMALL, flags)
    host.run(engine, **arguments)
    for operand in ("x", "w", "y", *({"bias", "scale"} & set(arguments))):
        moved = {
            alias: arguments[alias] + host.board.beat_bytes for alias in (operand, f"{operand}1") if alias in arguments
        }
        with pytest.raises(Refused, match=rf"^{engine}: {operand} reaches from"):
            host.start(engine, **arguments | moved)


@pytest.mark.parametrize("operand", ["x1", "y1"])
def test_an_operand_that_two_ports_share_is_at_one_address(tmp_path: Path, operand: str):
    """Only an array of two lanes has both ports; that of pynq-z2 does not look at the second."""
    for name in ("pynq-z2", "zcu104"):
        host = Host(Machine(boards.board(name)), tmp_path / name, ("conv_int8",))
        arguments = convolution(host, "conv_int8", SMALL, 0) | {operand: 0}
        if host.board.sizes["conv_int8"]["ports"] == 1:
            host.run("conv_int8", **arguments)
        else:
            with pytest.raises(Refused, match=rf"^conv_int8: {operand[0]}, {operand} are not one address"):
                host.start("conv_int8", **arguments)


@pytest.mark.parametrize(
    "values, says",
    [
        ({"tile_q": 0}, "tile_q=0"),
        ({"stride_h": 0, "C": 0}, "C=0; stride_h=0"),
        ({"tile_p": 200}, "a tile of 1x200x5 pixels is more than 256"),
        (
            {"stride_h": 300, "tile_p": 3, "padding_h": 900, "P": 3},
            "a tile's inputs take .* words, the buffer has 2048",
        ),
        ({"padding_w": 1 << 31}, "the last column of the input would be 2147483654"),
        ({"N": 1 << 31, "H": 0}, "N=2147483648, P=4, Q=5 are not emulated"),
        ({"C_total": 0}, "C=1 of C_total=0, K=2 of K_total=2: a part is more than all"),
    ],
)
def test_geometry_that_the_engine_cannot_take_is_refused(host: Host, values: dict[str, int], says: str):
    arguments = convolution(host, "conv_fp32", SMALL, 0)
    with pytest.raises(Refused, match=f"^conv_fp32: .*{says}"):
        host.start("conv_fp32", **arguments | values)


def test_a_convolution_that_writes_over_its_input_is_refused(host: Host):
    arguments = convolution(host, "conv_fp32", Geometry(1, 4, 4, 1, 2, tile_n=1, tile_p=4, tile_q=4), 0)
    with pytest.raises(Refused, match="overlaps"):
        host.start("conv_fp32", **arguments | {"y": arguments["x"]})


def test_a_convolution_may_leave_out_the_last_rows_of_its_output(host: Host):
    """P and Q are given: where padding differs between the sides they are not those of a symmetric one."""
    arguments = convolution(host, "conv_fp32", SMALL, 0)
    host.run("conv_fp32", **arguments | {"P": 3, "Q": 4, "tile_q": 4})


def random_geometry(random: np.random.Generator) -> dict[str, int]:
    """Of few pixels; some with more output than input, a padding that reaches far, or nothing to do."""
    most = {"N": 3, "H": 9, "W": 9, "K": 3, "P": 8, "Q": 8, "padding_h": 9, "padding_w": 4}
    least_one = {"C": 3, "R": 4, "S": 3, "stride_h": 7, "stride_w": 3, "dilation_h": 4, "dilation_w": 3}
    tiles = {"tile_n": 3, "tile_p": 9, "tile_q": 9}
    a = {name: int(random.integers(0, top, endpoint=True)) for name, top in most.items()}
    a |= {name: int(random.integers(1, top, endpoint=True)) for name, top in (least_one | tiles).items()}
    return a | {"C_total": a["C"] + int(random.integers(2)), "K_total": a["K"] + int(random.integers(2))}


@pytest.mark.parametrize("name", ["pynq-z2", "zcu104"])
@pytest.mark.parametrize("engine", ["conv_fp32", "conv_int8"])
def test_whatever_geometry_is_taken_makes_the_modelled_trips_within_its_buffers(tmp_path: Path, name: str, engine: str):
    """The board itself compares trips and guards of every launch."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    host = Host(Machine(boards.board(name)), tmp_path, (engine,))
    x, w, constants = (host.buffer(np.zeros(1 << 20, np.uint8)) for _ in range(3))
    y = host.machine.allocate(1 << 20)
    operands = {"x": x, "x1": x, "w": w, "y": y, "y1": y, "bias": constants, "scale": constants}
    taken = 0
    for _ in range(100):
        try:
            host.start(engine, **operands, **random_geometry(random), flags=int(random.integers(4)))
        except Refused as refused:
            assert "tile" in str(refused), "nothing else is wrong with these"
            continue
        host.wait(engine)
        taken += 1
    assert taken > 50
