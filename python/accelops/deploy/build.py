"""Bitstreams of the kernels for a board: by Vitis and Vivado where they are on the PATH, through hls/Makefile; else as a
project folder that needs nothing of accelops, to be taken to a machine that has them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accelops.targets.fpga.boards import Board, hls_folder
from accelops.targets.fpga.registers import kernels

VITIS = "AMD Vitis 2023.2 or later"
INSTRUCTIONS = "INSTRUCTIONS.md"
LOG = "build.log"


class BuildFailed(RuntimeError):
    """A tool ended with an error, or did not end in time, or left no result."""


@dataclass(frozen=True)
class Bitstream:
    """What is to be built: an overlay's name and its kernels."""

    board: Board
    name: str
    kernels: tuple[str, ...]

    @property
    def goal(self) -> str:
        """The Makefile's target."""
        return "xclbin" if self.board.family == "alveo" else "bit"

    @property
    def made(self) -> tuple[str, ...]:
        """The files that the Makefile leaves."""
        return ("accelops.xclbin",) if self.board.family == "alveo" else ("overlay.bit", "overlay.hwh")

    def command(self, hls: str, build: str) -> list[str]:
        assignments = [f"BOARD={self.board.name}", f"KERNELS={' '.join(self.kernels)}", f"BUILD={build}"]
        return ["make", "-C", hls, self.goal, *assignments]


def bitstreams(board: Board, tops: Sequence[str] = ()) -> list[Bitstream]:
    """With the kernels `tops`, or each overlay that the board is described with. Raises ValueError for an unknown kernel."""
    if not tops:
        return [Bitstream(board, name, tuple(own)) for name, own in board.overlays.items()]
    unknown = [top for top in tops if top not in kernels()]
    if unknown:
        raise ValueError(f"kernels={','.join(unknown)} are none of {', '.join(kernels())}")
    ordered = tuple(top for top in kernels() if top in tops)
    return [Bitstream(board, "-".join(ordered), ordered)]


def missing_tools(board: Board) -> dict[str, str]:
    """Programs that are not on the PATH, with what brings them."""
    needed = {"make": "GNU make", "v++": VITIS, "vitis-run": VITIS}
    if board.family != "alveo":
        needed["vivado"] = "AMD Vivado 2023.2 or later"
    return {program: package for program, package in needed.items() if shutil.which(program) is None}


def build(wanted: Sequence[Bitstream], output: Path, hours: float) -> list[Path]:
    """Runs the tools, for as many `hours` in all for each; what they print goes to output/build.log. The files, named after
    board and overlay. Raises BuildFailed; ValueError for a folder that make cannot take."""
    output = output.absolute()
    if any(character.isspace() for character in str(output)):
        raise ValueError(
            f"--output={str(output)!r} has a space in it, which make takes for two names: choose another folder"
        )
    output.mkdir(parents=True, exist_ok=True)
    written = []
    with open(output / LOG, "ab") as log:
        for bitstream in wanted:
            _run(bitstream.command(str(hls_folder()), str(output / "build")), log, hours)
            for name in bitstream.made:
                made = output / "build" / bitstream.board.name / name
                if not made.is_file():
                    raise BuildFailed(f"the tools ended well but left no {made}: see {output / LOG}")
                kept = output / f"{bitstream.board.name}-{bitstream.name}{made.suffix}"
                shutil.copy(made, kept.with_suffix(".new"))
                os.replace(kept.with_suffix(".new"), kept)
                written.append(kept)
    return written


def _run(command: list[str], log: object, hours: float) -> None:
    """In a group of processes of its own, so that all of them end where one does not."""
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        status = process.wait(3600 * hours)
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"{' '.join(command)} did not end in {hours:g} hours: give it more with --hours") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        raise BuildFailed(f"{' '.join(command)} ended with {status}: see {LOG} in the output folder")


def export(wanted: Sequence[Bitstream], output: Path) -> Path:
    """The sources for these bitstreams, with a Makefile and INSTRUCTIONS.md, as a new folder `output`. Raises ValueError
    where there is something already."""
    output = output.absolute()
    if output.exists():
        raise ValueError(f"--output={output} exists already: choose a new folder, or remove it")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        _copy_sources(wanted[0].board, temporary)
        (temporary / INSTRUCTIONS).write_text(instructions(wanted))
        temporary.chmod(0o755)
        os.replace(temporary, output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return output


def _copy_sources(board: Board, folder: Path) -> None:
    """All kernels', so that the folder can build any of them later, but one board's."""
    hls = hls_folder()
    for name in ("Makefile", f"boards/{board.name}.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(hls / name, folder / name)
    operations = {kernel.op for kernel in kernels().values()}
    for name in (*sorted(operations), "include", "sim", "tcl", f"generated/{board.name}"):
        shutil.copytree(hls / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def instructions(wanted: Sequence[Bitstream]) -> str:
    board = wanted[0].board
    steps = [
        f"# Bitstreams for {board.title}",
        "",
        f"Part {board.part}, {board.clock_mhz} MHz. The kernels are C-simulated; they were not synthesised before.",
        "",
        "## You need",
        f"- {VITIS}" + (f" with the platform {board.platform}" if board.platform else ""),
        *(
            []
            if board.family == "alveo"
            else [f"- AMD Vivado of the same version, with the board files of {board.board_part}"]
        ),
        "- GNU make",
        "",
        "## In this folder",
        "```sh",
        "source /tools/Xilinx/Vitis/2023.2/settings64.sh      # where yours is installed",
        *([] if board.family == "alveo" else ["source /tools/Xilinx/Vivado/2023.2/settings64.sh"]),
        f"make csim BOARD={board.name} BUILD=$PWD/build                # needs g++ alone, and must say 0 differ",
    ]
    for bitstream in wanted:
        tops, to = " ".join(bitstream.kernels), f"{board.name}-{bitstream.name}"
        steps.append(f'make {bitstream.goal} BOARD={board.name} KERNELS="{tops}" BUILD=$PWD/build')
        steps += [f"cp build/{board.name}/{name} {to}{Path(name).suffix}" for name in bitstream.made]
    steps += ["```", "", "## Then"]
    if board.family == "alveo":
        steps.append("accelops drives no Alveo card yet: the .xclbin is for XRT's own tools.")
    else:
        steps += [
            "Put the .bit and .hwh pairs into one folder on the machine that drives the board, keep their names, and",
            "```sh",
            "export ACCELOPS_OVERLAYS=THAT_FOLDER",
            f"accelops fpga deploy MODEL.pt2 --board {board.name} --host ADDRESS_OF_THE_BOARD",
            "```",
        ]
    return "\n".join(steps) + "\n"
