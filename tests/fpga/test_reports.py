"""Reports in the form that Vitis HLS (csynth.xml, UG1399) and Vivado (report_utilization and report_timing_summary, UG906)
give them; the figures are made up, none comes from a synthesis."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from accelops.targets.fpga import boards, reports

XML = """<?xml version="1.0" encoding="UTF-8"?>
<profile>
  <UserAssignments><Part>xc7z020-clg400-1</Part><TopModelName>{module}</TopModelName>
    <TargetClockPeriod>10.00</TargetClockPeriod></UserAssignments>
  <PerformanceEstimates>
    <SummaryOfTimingAnalysis><EstimatedClockPeriod>{period}</EstimatedClockPeriod></SummaryOfTimingAnalysis>
    <SummaryOfLoopLatency><VITIS_LOOP_60_1><TripCount>undef</TripCount><PipelineII>{ii}</PipelineII></VITIS_LOOP_60_1></SummaryOfLoopLatency>
  </PerformanceEstimates>
  <AreaEstimates>
    <Resources><BRAM_18K>12</BRAM_18K><DSP>{dsp}</DSP><FF>900</FF><LUT>800</LUT></Resources>
    <AvailableResources><BRAM_18K>280</BRAM_18K><DSP>220</DSP><FF>106400</FF><LUT>53200</LUT></AvailableResources>
  </AreaEstimates>
</profile>
"""


def written(folder: Path, module: str = "step", period: str = "7.3", ii: int = 1, dsp: int = 80) -> Path:
    path = folder / f"{module}_csynth.xml"
    path.write_text(XML.format(module=module, period=period, ii=ii, dsp=dsp))
    return path


def test_what_csynth_estimates_is_marked_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    written(tmp_path)
    assert reports.main([str(tmp_path)]) == 0
    (module,) = json.loads(capsys.readouterr().out)["modules"]
    assert (module["kind"], module["module"], module["estimated_ns"]) == ("csynth", "step", 7.3)
    assert module["loops"] == {"VITIS_LOOP_60_1": 1}
    assert module["resources"] == {"BRAM_18K": 12, "DSP": 80, "FF": 900, "LUT": 800, "URAM": 0}


@pytest.mark.parametrize(
    "worse, words",
    [
        ({"ii": 2}, "loop VITIS_LOOP_60_1 has II=2, modelled 1"),
        ({"period": "10.4"}, "the clock is estimated at 10.4 ns, asked for 10.0 ns"),
        ({"dsp": 300}, "300 DSP of 220"),
    ],
)
def test_an_estimate_worse_than_the_model_fails(worse: dict, words: str, tmp_path: Path, capsys):
    written(tmp_path, **worse)
    assert reports.main([str(tmp_path)]) == 1
    assert words in capsys.readouterr().out


def test_no_report_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert reports.main([str(tmp_path)]) == 1
    assert "make -C hls csynth" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "<profile/>", "<profile"])
def test_what_is_no_report_is_named(text: str, tmp_path: Path):
    (tmp_path / "step_csynth.xml").write_text(text)
    with pytest.raises(ValueError, match=r"step_csynth\.xml is no report"):
        reports.main([str(tmp_path)])


HEADER = """Copyright 1986-2023 Xilinx, Inc. All Rights Reserved.
-------------------------------------------------------------------------------
| Tool Version : Vivado v.2023.2 (lin64) Build 4029153 Fri Oct 13 20:13:54 MDT 2023
| Date         : Thu Jan  1 00:00:00 1970
| Host         : nowhere
| Command      : {command}
| Design       : accelops_wrapper
| Device       : xc7z020clg400-1
| Design State : {state}
-------------------------------------------------------------------------------
"""
UTILIZATION = """
1. Slice Logic
--------------

+----------------------------+-------+-------+------------+-----------+-------+
|          Site Type         |  Used | Fixed | Prohibited | Available | Util% |
+----------------------------+-------+-------+------------+-----------+-------+
| Slice LUTs*                | {lut:>5} |     0 |          0 |     53200 | 30.00 |
|   LUT as Logic             | 15000 |     0 |          0 |     53200 | 28.20 |
| Slice Registers            | 21000 |     0 |          0 |    106400 | 19.74 |
+----------------------------+-------+-------+------------+-----------+-------+
* Warning! LUT value is adjusted to account for LUT combining.

3. Memory
---------

+-------------------+------+-------+------------+-----------+-------+
|     Site Type     | Used | Fixed | Prohibited | Available | Util% |
+-------------------+------+-------+------------+-----------+-------+
| Block RAM Tile    | {ram:>4} |     0 |          0 |       140 | 44.64 |
|   RAMB36/FIFO*    |   60 |     0 |          0 |       140 | 42.86 |
+-------------------+------+-------+------------+-----------+-------+

4. DSP
------

+----------------+------+-------+------------+-----------+-------+
|    Site Type   | Used | Fixed | Prohibited | Available | Util% |
+----------------+------+-------+------------+-----------+-------+
| DSPs           |  160 |     0 |          0 |       220 | 72.73 |
|   DSP48E1 only |  160 |       |            |           |       |
+----------------+------+-------+------------+-----------+-------+
"""
TIMING = """
------------------------------------------------------------------------------------------------
| Design Timing Summary
| ---------------------
------------------------------------------------------------------------------------------------

    WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WHS(ns)      THS(ns)  THS Failing Endpoints  THS Total Endpoints     WPWS(ns)     TPWS(ns)  TPWS Failing Endpoints  TPWS Total Endpoints  
    -------      -------  ---------------------  -------------------      -------      -------  ---------------------  -------------------     --------     --------  ----------------------  --------------------  
{wns:>11}        0.000                      0                41000{whs:>13}        0.000                      0                41000        3.750        0.000                       0                 21000  


------------------------------------------------------------------------------------------------
| Clock Summary
"""  # noqa: W291


def overlay(
    folder: Path, lut: int = 16000, ram: str = "62.5", wns: str = "0.285", whs: str = "0.020", state: str = "Routed"
) -> Path:
    utilization = HEADER.format(command="report_utilization -file utilization.rpt", state=state)
    (folder / "utilization.rpt").write_text(utilization + UTILIZATION.format(lut=lut, ram=ram))
    timing = HEADER.format(command="report_timing_summary -file timing.rpt", state=state)
    (folder / "timing.rpt").write_text(timing + TIMING.format(wns=wns, whs=whs))
    return folder


def test_what_vivado_found_is_marked_post_route(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert reports.main([str(overlay(tmp_path))]) == 0
    said = json.loads(capsys.readouterr().out)
    (found,) = said["overlays"]
    assert (found["kind"], found["device"], said["modules"]) == ("post-route", "xc7z020clg400-1", [])
    assert found["tool"].startswith("Vivado v.2023.2")
    assert found["resources"] == {"LUT": 16000, "FF": 21000, "BRAM": 62.5, "DSP": 160}
    assert found["available"] == {"LUT": 53200, "FF": 106400, "BRAM": 140, "DSP": 220}
    assert found["slack_ns"] == {"setup": 0.285, "hold": 0.020, "pulse width": 3.75}


def test_tables_of_ultrascale_and_of_older_versions_are_read_too(tmp_path: Path):
    path = overlay(tmp_path) / "utilization.rpt"
    text = path.read_text().replace("Slice ", "CLB ").replace(" Prohibited |", "").replace("|          0 |", "|")
    path.write_text(text.replace("| DSPs  ", "| URAM           |   12 |     0 |        96 | 12.50 |\n| DSPs  "))
    found = reports.routed(path, tmp_path / "timing.rpt")
    assert found["resources"] == {"LUT": 16000, "FF": 21000, "BRAM": 62.5, "URAM": 12, "DSP": 160}


@pytest.mark.parametrize(
    "worse, words",
    [
        ({"wns": "-0.412"}, "overlay: setup slack is -0.412 ns"),
        ({"whs": "-0.003"}, "overlay: hold slack is -0.003 ns"),
        ({"lut": 60000}, "overlay: 60000 LUT of 53200"),
        ({"ram": "140.5"}, "overlay: 140.5 BRAM of 140"),
    ],
)
def test_an_overlay_that_misses_its_clock_or_its_part_fails(worse: dict, words: str, tmp_path: Path, capsys):
    assert reports.main([str(overlay(tmp_path, **worse))]) == 1
    assert words in json.loads(capsys.readouterr().out)["worse_than_modelled"]


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: text.replace("Routed", "Fully Placed"), "a design that is Fully Placed, not of a routed one"),
        (lambda text: text.replace("Design State", "State"), "it has no Design State"),
        (lambda text: text.replace("WNS(ns)", "WNS"), "it has no Design Timing Summary"),
        (lambda text: text.replace("0.285", "   NA"), "the worst slack is no number, so no clock is constrained"),
        (lambda text: text.replace("DSPs", "Multipliers"), "it has no DSP"),
    ],
)
def test_what_is_no_report_of_a_routed_overlay_is_named(change, words: str, tmp_path: Path):
    for path in overlay(tmp_path).iterdir():
        path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=words):
        reports.main([str(tmp_path)])


def test_the_makefile_reports_both(tmp_path: Path):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    folder = tmp_path / "pynq-z2"
    (folder / "hls").mkdir(parents=True)
    written(folder / "hls")
    overlay(folder, wns="-1.0")
    command = ["make", "-s", "-C", str(boards.hls_folder()), "report", f"BUILD={tmp_path}", f"PYTHON={sys.executable}"]
    # make runs elsewhere, where a relative path to the package leads nowhere.
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode != 0
    said = json.loads(done.stdout)
    assert [found["kind"] for found in (*said["modules"], *said["overlays"])] == ["csynth", "post-route"]
    assert said["worse_than_modelled"] == ["overlay: setup slack is -1.0 ns"]
