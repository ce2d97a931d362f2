"""The emulated board of `accelops fpga emulate`: made from the command's options, and telling of every launch.

With --json one object a line: first where the board is, then each launch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.markup import escape

from accelops.targets.fpga import boards
from accelops.targets.fpga.boards import Board
from accelops.targets.fpga.emulator import handoff
from accelops.targets.fpga.emulator.csim import csim
from accelops.targets.fpga.emulator.ddr import Ddr
from accelops.targets.fpga.emulator.fabric import Launch, Slots
from accelops.targets.fpga.emulator.faults import Faults, parse
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.emulator.rtl import rtl
from accelops.targets.fpga.emulator.server import HOST, Server, require_pynq
from accelops.targets.fpga.registers import kernels
from accelops.terminal import progress_bar, stderr, stdout

SLOTS: dict[str, Slots] = {"csim": csim, "rtl": rtl}


def serving(
    name: str, port: int, kernel_slot: str, faults: Sequence[str], overlays: Path | None, as_json: bool
) -> Server:
    """Raises ValueError for what does not exist, TargetUnavailable for what is not installed, OSError for a taken port."""
    if kernel_slot not in SLOTS:
        raise ValueError(f"--kernel-slot={kernel_slot!r} is unknown; choose one of {', '.join(SLOTS)}")
    board, slots = boards.board(name), SLOTS[kernel_slot]
    asked = Faults(*map(parse, faults))
    machine = Machine(board, slots, asked, told=lambda launch: tell(launch, as_json), warned=warn)
    require_pynq()
    compile_all(board, slots)
    written = [] if overlays is None else write_overlays(board, overlays)
    server = Server(machine, port)
    announce(board, server.port, kernel_slot, written, as_json)
    return server


def compile_all(board: Board, slots: Slots) -> None:
    """Before a client waits for it; kept for the next time."""
    with progress_bar() as bars:
        task = bars.add_task(f"compiling the kernels for {board.name}", total=len(kernels()))
        for kernel in kernels().values():
            slots(kernel, board, Ddr(board))
            bars.update(task, advance=1)


def write_overlays(board: Board, folder: Path) -> list[str]:
    return [str(handoff.write(board, tops, folder, f"{board.name}-{name}")) for name, tops in board.overlays.items()]


def announce(board: Board, port: int, kernel_slot: str, overlays: list[str], as_json: bool) -> None:
    if as_json:
        said = {"board": board.name, "host": HOST, "port": port, "kernel_slot": kernel_slot, "overlays": overlays}
        return typer.echo(json.dumps(said))
    stdout.print(f"{board.title}, emulated ({kernel_slot}), at {HOST}:{port}; Ctrl-C ends it", highlight=False)
    for path in overlays:
        stdout.print(f"overlay {escape(path)}", highlight=False, soft_wrap=True)
    stdout.print("of each launch: cycles, time and bytes are modelled", highlight=False)


def tell(launch: Launch, as_json: bool) -> None:
    if as_json:
        return typer.echo(json.dumps({name: value for name, value in vars(launch).items() if name != "trips"}))
    counted = "" if launch.cycles is None else f", {launch.cycles} counted in RTL"
    stdout.print(
        f"{launch.kernel}: {launch.modelled_cycles} cycles{counted}, {launch.modelled_seconds * 1e6:.1f} us, "
        f"{launch.modelled_bytes} bytes; simulated in {launch.wall_seconds:.3f} s",
        highlight=False,
    )
    for wrong in launch.faults:
        warn(wrong)


def warn(text: str) -> None:
    stderr.print(f"[red]{escape(text)}[/]", soft_wrap=True)
