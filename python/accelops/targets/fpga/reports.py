"""What Vitis HLS estimates, as JSON: `python -m accelops.targets.fpga.reports FOLDER` reads the *_csynth.xml below it.

Exit status 1 where an estimate is worse than the cycle model takes for granted: an initiation interval above 1 in a
pipelined loop, or a clock period that is estimated longer than the one asked for. All figures are marked "csynth": they
are the tool's estimates before place and route.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

RESOURCES = ("BRAM_18K", "DSP", "FF", "LUT", "URAM")


def report(path: Path) -> dict[str, Any]:
    """One module's csynth.xml. Raises ValueError where it is not one."""
    try:
        root = ElementTree.parse(path).getroot()
        timing = root.find("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")
        return {
            "kind": "csynth",
            "module": _text(root, "UserAssignments/TopModelName"),
            "part": _text(root, "UserAssignments/Part"),
            "target_ns": float(_text(root, "UserAssignments/TargetClockPeriod")),
            "estimated_ns": None if timing is None else float(timing.text or "nan"),
            "loops": {loop.tag: int(_text(loop, "PipelineII")) for loop in _pipelined(root)},
            "resources": {name: int(root.findtext(f"AreaEstimates/Resources/{name}") or 0) for name in RESOURCES},
            "available": {
                name: int(root.findtext(f"AreaEstimates/AvailableResources/{name}") or 0) for name in RESOURCES
            },
        }
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} is no report of Vitis HLS's csynth: {error}") from error


def _text(root: ElementTree.Element, path: str) -> str:
    text = root.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    return text


def _pipelined(root: ElementTree.Element) -> list[ElementTree.Element]:
    loops = root.findall("PerformanceEstimates/SummaryOfLoopLatency//*")
    return [loop for loop in loops if loop.findtext("PipelineII") is not None]


def complaints(module: dict[str, Any]) -> list[str]:
    """What is worse than the cycle model says."""
    name, target, estimated = module["module"], module["target_ns"], module["estimated_ns"]
    slow = [f"{name}: loop {loop} has II={ii}, modelled 1" for loop, ii in module["loops"].items() if ii > 1]
    if estimated is not None and estimated > target:
        slow.append(f"{name}: the clock is estimated at {estimated} ns, asked for {target} ns")
    over = [
        f"{name}: {used} {resource} of {module['available'][resource]}"
        for resource, used in module["resources"].items()
        if used > module["available"][resource] > 0
    ]
    return slow + over


def main(arguments: list[str]) -> int:
    paths = sorted(path for folder in arguments for path in Path(folder).rglob("*_csynth.xml"))
    if not paths:
        print(f"no *_csynth.xml below {' '.join(arguments)}: make -C hls csynth", file=sys.stderr)
        return 1
    modules = [report(path) for path in paths]
    wrong = [complaint for module in modules for complaint in complaints(module)]
    print(json.dumps({"modules": modules, "worse_than_modelled": wrong}, indent=2))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
