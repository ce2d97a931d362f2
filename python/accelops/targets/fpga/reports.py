"""What the tools say of the kernels, as JSON: `python -m accelops.targets.fpga.reports FOLDER` reads what lies below it.

*_csynth.xml is what Vitis HLS estimates before place and route, marked "csynth" (UG1399, "Analyzing the Results of
Synthesis"); utilization.rpt and timing.rpt, which hls/tcl/overlay.tcl writes, are Vivado's of the whole overlay, marked
"post-route" (UG906, "Report Utilization" and "Report Timing Summary").

Exit status 1 where anything is worse than the cycle model takes for granted: an initiation interval above 1 in a pipelined
loop, a clock period that is estimated longer than the one asked for, negative slack, more resources than the part has.
"""

from __future__ import annotations

import json
import re
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


# What a part is made of, by the rows of Vivado's tables: Zynq-7000 says slices where UltraScale+ says CLBs.
SITES = {
    "Slice LUTs": "LUT",
    "CLB LUTs": "LUT",
    "Slice Registers": "FF",
    "CLB Registers": "FF",
    "Block RAM Tile": "BRAM",
    "URAM": "URAM",
    "DSPs": "DSP",
}
SLACKS = {"WNS(ns)": "setup", "WHS(ns)": "hold", "WPWS(ns)": "pulse width"}


def routed(utilization: Path, timing: Path) -> dict[str, Any]:
    """An overlay's reports. Raises ValueError where they are none of a routed design, or do not hold what is looked for."""
    sites = _sites(utilization)
    return {
        "kind": "post-route",
        "device": _header(utilization, "Device"),
        "tool": _header(utilization, "Tool Version"),
        "resources": {name: used for name, (used, _) in sites.items()},
        "available": {name: available for name, (_, available) in sites.items()},
        "slack_ns": _slacks(timing),
    }


def _header(path: Path, field: str) -> str:
    found = re.search(rf"^\|\s*{field}\s*:\s*(.+?)\s*\|?$", path.read_text(), re.MULTILINE)
    if not found:
        raise ValueError(f"{path} is no report of Vivado's: it has no {field}")
    return found[1]


def _check_state(path: Path) -> None:
    state = _header(path, "Design State")
    if "Routed" not in state:
        raise ValueError(f"{path} is of a design that is {state}, not of a routed one")


def _sites(path: Path) -> dict[str, tuple[float, float]]:
    """What is used and what the part has. Columns go by their names: newer versions have one more."""
    _check_state(path)
    columns: list[str] = []
    found = {}
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if {"Site Type", "Used", "Available"} <= set(cells):
            columns = cells
        site = SITES.get(cells[0].rstrip("*"))
        if site and len(cells) == len(columns):
            row = dict(zip(columns, cells, strict=True))
            found[site] = float(row["Used"]), float(row["Available"])
    missing = {"LUT", "FF", "BRAM", "DSP"} - set(found)
    if missing:
        raise ValueError(f"{path} is no report of Vivado's utilization: it has no {', '.join(sorted(missing))}")
    return found


def _slacks(path: Path) -> dict[str, float]:
    """The worst of each kind, from the table below "Design Timing Summary"."""
    _check_state(path)
    _, _, below = path.read_text().partition("Design Timing Summary")
    table = re.search(r"^( *WNS\(ns\).*)\n[ -]+\n(.*)$", below, re.MULTILINE)
    if not table:
        raise ValueError(f"{path} is no report of Vivado's timing: it has no Design Timing Summary")
    names, values = re.split(r"\s{2,}", table[1].strip()), table[2].split()
    row = dict(zip(names, values, strict=True))
    try:
        return {kind: float(row[name]) for name, kind in SLACKS.items()}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: the worst slack is no number, so no clock is constrained: {error}") from error


def routed_complaints(overlay: dict[str, Any]) -> list[str]:
    slack = [f"overlay: {kind} slack is {ns} ns" for kind, ns in overlay["slack_ns"].items() if ns < 0]
    available = overlay["available"]
    over = [
        f"overlay: {used:g} {name} of {available[name]:g}"
        for name, used in overlay["resources"].items()
        if used > available[name]
    ]
    return slack + over


def main(arguments: list[str]) -> int:
    folders = [Path(argument) for argument in arguments]
    estimated = sorted(path for folder in folders for path in folder.rglob("*_csynth.xml"))
    implemented = sorted(path for folder in folders for path in folder.rglob("utilization.rpt"))
    if not estimated and not implemented:
        print(
            f"no *_csynth.xml or utilization.rpt below {' '.join(arguments)}: make -C hls csynth, bit", file=sys.stderr
        )
        return 1
    modules = [report(path) for path in estimated]
    overlays = [routed(path, path.with_name("timing.rpt")) for path in implemented]
    wrong = [complaint for module in modules for complaint in complaints(module)]
    wrong += [complaint for overlay in overlays for complaint in routed_complaints(overlay)]
    print(json.dumps({"modules": modules, "overlays": overlays, "worse_than_modelled": wrong}, indent=2))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
