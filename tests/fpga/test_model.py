"""The goals of the int8 convolution, *modelled*, over every layer of ResNet-50 that has one; and the table that is committed."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from accelops.bench.fpga_model import Modelled, launch, rows, table
from accelops.bench.suites import conv_cases
from accelops.targets.fpga import boards
from accelops.targets.fpga.boards import Board

COMMITTED = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "fpga_model.json"
GOALS = {("pynq-z2", 3): 0.8, ("zcu104", 3): 0.67, ("pynq-z2", 1): 0.7, ("zcu104", 1): 0.7}


@cache
def modelled(network: str) -> tuple[Modelled, ...]:
    """With eight images, so that weights are read once for several."""
    return tuple(rows(network, batch=8))


@pytest.mark.parametrize("board, taps", GOALS)
def test_every_layer_of_resnet50_is_modelled_to_reach_the_goal(board: str, taps: int):
    kernel = f"{taps}x{taps}"
    reached = {
        row.layer: row.efficiency
        for row in modelled("resnet50")
        if (row.engine, row.board) == ("conv_int8", board) and row.layer.startswith(kernel)
    }
    assert len(reached) == {1: 15, 3: 7}[taps]
    assert not {layer: part for layer, part in reached.items() if part < GOALS[board, taps]}


@pytest.mark.parametrize("board", ["pynq-z2", "zcu104"])
def test_a_depthwise_layer_uses_one_row_of_the_array_at_most(board: str):
    """Each output needs one channel of the word that multiplies: no goal is set, and none is claimed."""
    inputs = boards.board(board).sizes["conv_int8"]["inputs"]
    depthwise = [
        row
        for row in modelled("mobilenet_v3")
        if (row.engine, row.board) == ("conv_int8", board) and row.layer.startswith("depthwise")
    ]
    assert depthwise
    assert all(0 < row.efficiency <= 1 / inputs for row in depthwise)


@pytest.mark.parametrize("network", ["resnet50", "mobilenet_v3"])
def test_no_layer_is_faster_than_the_array_or_memory(network: str):
    for row in modelled(network):
        board: Board = boards.board(row.board)
        assert 0 < row.efficiency <= 1
        bandwidth = board.ddr.bytes_per_second / board.ddr.banks
        assert row.bytes / bandwidth <= row.milliseconds * 1e-3 * 1.001


def test_a_launch_of_merged_groups_has_all_their_channels():
    (case,) = (
        c for c in conv_cases("mobilenet_v3", 8) if c.spec.direction == "fprop" and c.name == "depthwise 3x3 72@56"
    )
    g, launches = launch(case.spec, "conv_int8", boards.board("pynq-z2"))
    assert (g.C, g.K, launches, g.C_total, g.K_total) == (1, 1, 5, 5, 5)


def test_the_committed_table_is_current():
    """After a change of the model: python benchmarks/fpga_model.py benchmarks/results/fpga_model.json"""
    committed = json.loads(COMMITTED.read_text())
    assert committed["evidence"]["kind"] == "modelled"
    now = [asdict(row) for network in ("resnet50", "mobilenet_v3") for row in modelled(network)]
    assert committed["modelled"] == now


def test_the_table_has_a_line_for_each_row():
    some = list(modelled("resnet50")[:3])
    lines = table(some).splitlines()
    assert len(lines) == 4
    assert lines[0].split()[:3] == ["network", "layer", "multiplicity"]
    assert str(some[2].cycles) in lines[3].split()
