"""hls/tcl/overlay.tcl under tclsh, with stand-ins for Vivado's commands: what it would ask a Vivado for. Not a build."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from accelops.targets.fpga import boards
from accelops.targets.fpga.registers import kernels

ZYNQ = [name for name in boards.names() if boards.board(name).family != "alveo"]


def calls(board: str, script: Path | None = None, tops: tuple[str, ...] = tuple(kernels())) -> list[str]:
    if shutil.which("tclsh") is None:
        pytest.skip("needs tclsh")
    script = script or boards.hls_folder() / "tcl" / "overlay.tcl"
    lines = [
        f"source {Path(__file__).parent / 'vivado.tcl'}",
        f"set argv {{{boards.hls_folder()}/generated/{board}/board.tcl ip out {' '.join(tops)}}}",
        f"source {script}",
    ]
    done = subprocess.run(["tclsh"], input="\n".join(lines), capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("board", ZYNQ)
def test_part_and_board_are_the_described_ones(board: str):
    said = calls(board)
    assert f"create_project -force overlay out/vivado -part {boards.board(board).part}" in said
    assert f"set_property board_part {boards.board(board).board_part} project" in said


@pytest.mark.parametrize("board", ZYNQ)
def test_the_newest_processing_system_is_taken(board: str):
    system = "processing_system7" if boards.board(board).family == "zynq7000" else "zynq_ultra_ps_e"
    assert f"create_bd_cell -type ip -vlnv xilinx.com:ip:{system}:1.10 ps" in calls(board)


@pytest.mark.parametrize("board", ZYNQ)
def test_every_bundle_of_every_kernel_reaches_a_port(board: str):
    said = "\n".join(calls(board))
    for kernel in kernels().values():
        for i, bundle in enumerate(kernel.bundles):
            port = i % boards.board(board).ports.number
            assert re.search(rf"connect_bd_intf_net {kernel.top}/m_axi_{bundle} memory{port}/S\d\d_AXI", said)
    for i, port in enumerate(boards.board(board).ports.names):
        assert f"connect_bd_intf_net memory{i}/M00_AXI ps/{port}\n" in said


@pytest.mark.parametrize("board", ZYNQ)
def test_no_slave_of_an_interconnect_has_two_masters(board: str):
    slaves = [line.split()[-1] for line in calls(board) if line.startswith("connect_bd_intf_net")]
    assert len(slaves) == len(set(slaves))


@pytest.mark.parametrize("board", ZYNQ)
def test_control_registers_lie_where_the_register_map_says(board: str):
    said = "\n".join(calls(board))
    described = json.loads((boards.hls_folder() / "generated" / board / "registers.json").read_text())
    for top, kernel in described["kernels"].items():
        assert re.search(rf"assign_bd_address -offset {kernel['base']} .* {top}/s_axi_control/Reg", said)


def test_a_kernel_keeps_its_address_whichever_others_are_there():
    alone, together = calls("pynq-z2", tops=("reduce",)), calls("pynq-z2")
    (address,) = [line for line in alone if "reduce/s_axi_control/Reg" in line]
    assert address in together
    assert not any("adam" in line for line in alone)


@pytest.mark.parametrize("board", ZYNQ)
def test_the_clock_is_the_described_one_and_reaches_all(board: str):
    clock = boards.board(board).clock_mhz
    said = "\n".join(calls(board))
    assert re.search(rf"(FPGA0_PERIPHERAL|PL0_REF_CTRL_)_FREQMHZ {clock}\b", said)
    for pin in [f"{top}/ap_clk" for top in kernels()] + ["memory0/aclk", "control/aclk"]:
        assert re.search(rf"connect_bd_net ps/\w+ {pin}$", said, re.MULTILINE), pin


@pytest.mark.parametrize("board", ZYNQ)
def test_bitstream_and_handoff_have_the_same_stem(board: str):
    copied = [line.split()[-1] for line in calls(board) if line.startswith("file copy")]
    assert copied == ["out/overlay.bit", "out/overlay.hwh"]


def test_an_interconnect_that_is_wired_wrongly_is_seen(tmp_path: Path):
    right = (boards.hls_folder() / "tcl" / "overlay.tcl").read_text()
    wrong = right.replace("[format S%02d_AXI $i]", "S00_AXI")
    assert wrong != right
    (tmp_path / "overlay.tcl").write_text(wrong)
    slaves = [
        line.split()[-1] for line in calls(ZYNQ[0], tmp_path / "overlay.tcl") if line.startswith("connect_bd_intf_net")
    ]
    assert len(slaves) != len(set(slaves))
