"""The commands `accelops fpga`: FPGA boards, real and emulated."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from accelops import cli_deploy
from accelops.terminal import AsJson, bad_input, emit, stderr, stdout

if TYPE_CHECKING:
    from accelops.targets.fpga.driver import Driver

app = typer.Typer(no_args_is_help=True, help="FPGA boards, real and emulated.")
app.command("deploy")(cli_deploy.deploy)
app.command("build")(cli_deploy.build)

BoardName = Annotated[str, typer.Option("--board", help="pynq-z2, zcu104 or kv260.")]


@app.command("boards")
def list_boards(
    host: Annotated[
        list[str] | None,
        typer.Option(help="ADDRESS or ADDRESS:PORT of a board to ask too. Repeatable; else PYNQ_REMOTE_DEVICES."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Which boards answer: this machine's own, and those on the network. Exits 1 where none does."""
    from accelops import TargetUnavailable
    from accelops.targets.fpga import discovery

    with bad_input(TargetUnavailable):
        boards, silent = discovery.asked(host or ())
    rows = [described(driver) for driver in boards]
    if as_json:
        emit({"boards": rows, "silent": silent})
    else:
        if rows:
            table = Table("at", "board", "part", "emulated", "free memory", "kernels in an overlay")
            for row in rows:
                free = "not told" if row["free_bytes"] is None else f"{row['free_bytes'] / 2**20:.0f} MiB"
                held = "; ".join(f"{name}: {', '.join(tops)}" for name, tops in row["overlays"].items())
                table.add_row(row["where"], row["board"], row["part"], "yes" if row["emulated"] else "no", free, held)
            stdout.print(table)
        for failure in silent:
            stderr.print(f"[red]{escape(failure)}[/]", soft_wrap=True)
        if not rows and not silent:
            stderr.print(escape(discovery.none_found()), soft_wrap=True)
    raise typer.Exit(0 if rows else 1)


def described(driver: Driver) -> dict[str, Any]:
    from accelops.targets.fpga.link import free_memory

    board = driver.board
    return {
        "where": driver.where,
        "board": board.name,
        "title": board.title,
        "part": board.part,
        "emulated": driver.emulated,
        "free_bytes": free_memory(driver.link),
        "overlays": {name: list(tops) for name, tops in board.overlays.items()},
    }


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
    """Serve an emulated board to pynq's clients on this machine until interrupted or terminated, telling of every launch.

    Results are simulated, cycles and times modelled. With --json: one object a line."""
    from accelops import TargetUnavailable
    from accelops.cli_emulate import serving

    with bad_input(TargetUnavailable, OSError):
        server = serving(board, port, kernel_slot, fault or (), overlays, as_json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    try:
        while not server.ended_within(1.0):
            pass
    except KeyboardInterrupt:
        stderr.print("stopped")
    finally:
        server.stop()
