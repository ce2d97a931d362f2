"""The commands `accelops fpga`: FPGA boards, real and emulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from accelops import cli_deploy
from accelops.terminal import AsJson, bad_input, progress_bar, stderr, stdout

if TYPE_CHECKING:
    from accelops.targets.fpga.boards import Board
    from accelops.targets.fpga.emulator.fabric import Launch, Slots

app = typer.Typer(no_args_is_help=True, help="FPGA boards, real and emulated.")
app.command("deploy")(cli_deploy.deploy)
app.command("build")(cli_deploy.build)

BoardName = Annotated[str, typer.Option("--board", help="pynq-z2, zcu104 or kv260.")]


@app.command("emulate")
def emulate(
    board: BoardName = "pynq-z2",
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 7967,
    kernel_slot: Annotated[
        str, typer.Option(help="csim: the kernels' C++; rtl: Verilated RTL where there is one.")
    ] = "csim",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="hang, slow=SECONDS, bad-crc, out-of-memory, drop or wrong-overlay; *TIMES behind it. Repeatable."
        ),
    ] = None,
    overlays: Annotated[
        Path | None, typer.Option(help="Write the board's .bit and .hwh pairs into this folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve an emulated board to pynq's clients on this machine until interrupted, and tell of every launch.

    Results are simulated, cycles and times modelled. With --json: one object a line."""
    from accelops import TargetUnavailable
    from accelops.targets.fpga import boards
    from accelops.targets.fpga.emulator.faults import Faults, parse
    from accelops.targets.fpga.emulator.machine import Machine
    from accelops.targets.fpga.emulator.server import Server

    with bad_input(TargetUnavailable, OSError):
        described = boards.board(board)
        slots = slots_named(kernel_slot)
        faults = Faults(*map(parse, fault or ()))
        machine = Machine(described, slots, faults, told=lambda launch: tell(launch, as_json), warned=warn)
        compile_all(described, slots)
        written = [] if overlays is None else write_overlays(described, overlays)
        server = Server(machine, port)
    announce(described, server.port, kernel_slot, written, as_json)
    try:
        while not server.wait(1.0):
            pass
    except KeyboardInterrupt:
        stderr.print("stopped")
    finally:
        server.stop()


def slots_named(name: str) -> Slots:
    from accelops.targets.fpga.emulator.csim import csim
    from accelops.targets.fpga.emulator.rtl import rtl

    slots = {"csim": csim, "rtl": rtl}
    if name not in slots:
        raise ValueError(f"--kernel-slot={name!r} is unknown; choose one of {', '.join(slots)}")
    return slots[name]


def compile_all(board: Board, slots: Slots) -> None:
    """Before a client waits for it; kept for the next time."""
    from accelops.targets.fpga.emulator.ddr import Ddr
    from accelops.targets.fpga.registers import kernels

    with progress_bar() as bars:
        task = bars.add_task(f"compiling the kernels for {board.name}", total=len(kernels()))
        for kernel in kernels().values():
            slots(kernel, board, Ddr(board))
            bars.update(task, advance=1)


def write_overlays(board: Board, folder: Path) -> list[str]:
    from accelops.targets.fpga.emulator import handoff

    return [str(handoff.write(board, tops, folder, f"{board.name}-{name}")) for name, tops in board.overlays.items()]


def announce(board: Board, port: int, kernel_slot: str, overlays: list[str], as_json: bool) -> None:
    if as_json:
        said = {
            "board": board.name,
            "host": "127.0.0.1",
            "port": port,
            "kernel_slot": kernel_slot,
            "overlays": overlays,
        }
        return typer.echo(json.dumps(said))
    stdout.print(f"{board.title}, emulated ({kernel_slot}), at 127.0.0.1:{port}; Ctrl-C ends it", highlight=False)
    for path in overlays:
        stdout.print(f"overlay {escape(path)}", highlight=False, soft_wrap=True)
    stdout.print("of each launch: cycles, time and bytes are modelled", highlight=False)


def tell(launch: Launch, as_json: bool) -> None:
    if as_json:
        said: dict[str, Any] = {name: value for name, value in vars(launch).items() if name != "trips"}
        return typer.echo(json.dumps(said))
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
