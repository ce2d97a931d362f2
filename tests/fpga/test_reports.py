"""Reports of Vitis HLS in the form that its csynth.xml has; the figures are made up, none comes from a synthesis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accelops.targets.fpga import reports

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
