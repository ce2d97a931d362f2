"""The commands `accelops fpga deploy` and `accelops fpga build`: a model onto a board, and the board's bitstreams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from accelops.terminal import AsJson, bad_input, emit, stderr, stdout

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from accelops.deploy import Deployed
    from accelops.targets.fpga.driver import Driver

TOOL_MISSING = 3  # an exit code of build


def deploy(
    model: Annotated[Path, typer.Argument(help="A program of torch.export.save; nothing in it is unpickled.")],
    board: Annotated[str, typer.Option(help="pynq-z2, zcu104 or kv260.")] = "pynq-z2",
    host: Annotated[
        str | None, typer.Option(help="Of PYNQ.remote's server; without it the board that is found.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7967,
    assume_board: Annotated[
        bool, typer.Option("--assume-board", help="Its Linux does not say its type: believe --board.")
    ] = False,
    overlays: Annotated[Path | None, typer.Option(help="A .bit, or a folder of them, to look at first.")] = None,
    data: Annotated[str, typer.Option(help="digits (scikit-learn's, bundled) or cifar10 (see --root).")] = "digits",
    root: Annotated[Path | None, typer.Option(help="Folder with cifar-10-batches-bin.")] = None,
    calibration: Annotated[int, typer.Option(min=1, help="Training images for the ranges of activations.")] = 256,
    clip: Annotated[str, typer.Option(help="Where a range ends: max, mse, or a percentile such as 99.99.")] = "mse",
    images: Annotated[int, typer.Option(min=1, help="Test images that run on the board, compared to the bit.")] = 2,
    on_host: Annotated[
        list[str] | None, typer.Option(help="A layer that may run in fp32 on the host. Repeatable.")
    ] = None,
    points: Annotated[float, typer.Option(min=0.0, help="Of accuracy that int8 may lose.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Put an exported model on a board: check, quantise, upload, run, verify to the bit, tell what it costs.

    Exits 1 where the board's integers are not the reference's, it fails, or int8 loses more accuracy than --points."""
    from accelops import TargetUnavailable
    from accelops import data as bundled
    from accelops.deploy import load
    from accelops.deploy.trial import tried
    from accelops.targets.fpga.errors import BoardError

    try:
        with bad_input(TargetUnavailable):
            loaded = bundled.load(data, root)
            program = load(model)
            driver = connected(board, host, port, assume_board, overlays)
            deployed = compiled(program, board, loaded.train[0][:calibration], clip, tuple(on_host or ()))
            trial = tried(deployed, driver, loaded.test, images, points)
    except BoardError as error:
        stderr.print(f"[red]accelops:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    if as_json:
        emit({"model": str(model), **trial.to_dict()})
    else:
        trial.show(stdout)
    raise typer.Exit(0 if trial.passed else 1)


def connected(board: str, host: str | None, port: int, assume_board: bool, overlays: Path | None) -> Driver:
    """Raises ValueError for a board of another type, TargetUnavailable, BoardError."""
    from accelops.targets import fpga
    from accelops.targets.fpga import boards

    expected = boards.board(board)
    named = board if assume_board else None
    if host is not None:
        driver = fpga.connect(host, port, named, overlays)
    elif overlays is not None or assume_board:
        driver = fpga.here(named, overlays)
    else:
        driver = fpga.current()
    if driver.board.name != expected.name:
        raise ValueError(
            f"--board={board}, but {driver.where} is a {driver.board.name}: deploy with --board {driver.board.name}, or "
            "name the board's address with --host and --port"
        )
    return driver


def compiled(program: ExportedProgram, board: str, images: Tensor, clip: str, on_host: tuple[str, ...]) -> Deployed:
    """Raises ValueError, Unsupported among them."""
    from accelops import deploy
    from accelops.deploy.trial import batches, expected_batch

    size = expected_batch(program)
    cut = batches(images, size)
    if not cut:
        raise ValueError(f"the model is exported for {size} images at a time: calibrate with as many at least")
    ends: str | float = clip if clip in ("max", "mse") else number(clip)
    example = (cut[0] if size else cut[0][:2],)
    return deploy.compile(program, example, board, calibration=cut, clip=ends, host=on_host)


def number(clip: str) -> float:
    try:
        return float(clip)
    except ValueError:
        raise ValueError(f"--clip={clip!r}: choose max, mse or a percentile such as 99.99") from None


def build(
    board: Annotated[str, typer.Option(help="pynq-z2, zcu104, kv260 or u250.")] = "pynq-z2",
    kernels: Annotated[
        str | None, typer.Option(help="With commas between; default: each of the board's overlays.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Default: accelops-BOARD here.")] = None,
    hours: Annotated[float, typer.Option(min=0.0, help="For each bitstream.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Build a board's bitstreams with Vitis and Vivado, or export the project where they are not on the PATH.

    Exits 1 where a tool fails, 3 where one is missing and the project was exported instead."""
    from accelops.deploy import build as building
    from accelops.targets.fpga import boards

    with bad_input():
        described = boards.board(board)
        tops = [] if kernels is None else [top.strip() for top in kernels.split(",")]
        wanted = building.bitstreams(described, tops)
        folder = output or Path(f"accelops-{board}")
        missing = building.missing_tools(described)
        try:
            if missing:
                project, written = building.export(wanted, folder), []
            else:
                project, written = None, building.build(wanted, folder, hours)
        except building.BuildFailed as error:
            stderr.print(f"[red]accelops:[/] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(1) from None
    if as_json:
        bitstreams = [{"name": w.name, "kernels": list(w.kernels)} for w in wanted]
        emit(
            {
                "board": board,
                "wanted": bitstreams,
                "missing": missing,
                "project": project and str(project),
                "written": [str(path) for path in written],
            }
        )
    else:
        tell_of_build(missing, project, written)
    raise typer.Exit(TOOL_MISSING if missing else 0)


def tell_of_build(missing: dict[str, str], project: Path | None, written: list[Path]) -> None:
    for program, package in missing.items():
        stderr.print(f"{program}, of {package}, is not on the PATH", soft_wrap=True, highlight=False)
    if project is not None:
        stdout.print(f"the project is in {escape(str(project))}: INSTRUCTIONS.md has the commands", soft_wrap=True)
    for path in written:
        stdout.print(f"wrote {escape(str(path))}", soft_wrap=True, highlight=False)
