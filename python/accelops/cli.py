"""The command `accelops`: info, demo, bench, tune, explain, verify, fpga, tpu.

What a command needs is imported inside it, so that --help waits for torch alone, which comes with the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from accelops import cli_explain, cli_fpga, cli_tpu
from accelops.terminal import AsJson, Device, Target, bad_input, emit, progress_bar, sizes, stdout

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Convolution, Adam and all-reduce bucketing, fast behind PyTorch's own interface.",
    pretty_exceptions_enable=False,
)
app.add_typer(cli_explain.app, name="explain")
app.add_typer(cli_fpga.app, name="fpga")
app.add_typer(cli_tpu.app, name="tpu")


def main() -> None:
    app(prog_name="accelops")


@app.command()
def info(as_json: AsJson = False) -> None:
    """What is here: versions, targets that are ready and how to get the others, tables, evidence."""
    from accelops.information import information

    found = information()
    if as_json:
        return emit(found)
    for name, version in found["versions"].items():
        stdout.print(f"{name} {version}", highlight=False)
    cpu = found["cpu"]
    stdout.print(
        f"{cpu['device']}: instruction set {cpu['instruction_set']}, {cpu['threads']} threads", highlight=False
    )
    stdout.print(f"GPU: {found['gpu']}", highlight=False)
    table = Table("target", "ready")
    for target, ready in found["targets"].items():
        table.add_row(target, escape(ready))
    stdout.print(table)
    for op, tables in found["tables"].items():
        for source, path in tables.items():
            stdout.print(f"{source} table of {op}: {path}", highlight=False, soft_wrap=True)
    print_evidence(found["evidence"])


@app.command()
def verify(as_json: AsJson = False) -> None:
    """The evidence matrix: what stands behind every implementation. Exits 1 where one has nothing to show."""
    from accelops.dispatch.evidence import matrix

    pieces = [piece.to_dict() for piece in matrix()]
    missing = [f"{piece['op']} on {piece['target']}" for piece in pieces if piece["kind"] == "none"]
    if as_json:
        emit({"evidence": pieces, "missing": missing})
    else:
        print_evidence(pieces)
        stdout.print(f"without evidence: {', '.join(missing) or 'none'}")
    raise typer.Exit(1 if missing else 0)


def print_evidence(pieces: list[dict[str, Any]]) -> None:
    table = Table("op", "target", "evidence", "ready here", "device", "versions", "date")
    for piece in pieces:
        versions = ", ".join(f"{name} {version}" for name, version in piece["versions"].items())
        table.add_row(piece["op"], piece["target"], piece["kind"], escape(piece["ready"]), piece["device"], versions, piece["date"])  # fmt: skip
    stdout.print(table)


@app.command()
def demo(
    data: Annotated[str, typer.Option(help="digits (scikit-learn's, bundled) or cifar10 (see --root).")] = "digits",
    root: Annotated[Path | None, typer.Option(help="Folder with cifar-10-batches-bin.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 8,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Two epochs, ten compared steps.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write the CNN that torch trained here, as a .pt2.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train one CNN on real images with torch and with accelops, side by side. Exits 1 where results differ."""
    from accelops import data as images
    from accelops import demo as demonstration

    options = demonstration.Options(data, epochs, batch_size, seed=seed)
    if quick:
        options = demonstration.quick(options)
    with bad_input():
        loaded = images.load(data, root)
        demonstration.check_batch(options, loaded)
        if export is not None and not export.parent.is_dir():
            raise FileNotFoundError(f"--export={export}: there is no folder {export.parent}")
    with progress_bar() as bars:
        tasks: dict[str, Any] = {}

        def advance(name: str, total: int, loss: float | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            text = f"{name}: " + ("each step compared with fp64" if loss is None else f"loss {loss:.4f}")
            bars.update(tasks[name], advance=1, description=text)

        outcome = demonstration.run(options, loaded, advance)
    if export is not None:
        from accelops import deploy

        deploy.save(deploy.export(outcome.trainings["torch"].model.eval(), (loaded.test[0][:2],)), export)
    if as_json:
        emit(outcome.to_dict())
    else:
        demonstration.show(outcome, stdout)
    raise typer.Exit(0 if outcome.losses_agree else 1)


@app.command()
def bench(
    suite: Annotated[str, typer.Argument(help="adam, bucket, fused, overhead, steps, or a network's name.")],
    seconds: Annotated[float, typer.Option(help="Time for each row.")] = 1.0,
    batch: Annotated[int | None, typer.Option(min=1, help="Instead of the suite's own.")] = None,
    match: Annotated[str, typer.Option(help="Only rows whose name contains this.")] = "",
    device: Device = "cpu",
    dtype: Annotated[
        str, typer.Option(help="Of conv suites, and of the autocast of steps: float32 or bfloat16.")
    ] = "float32",
    target: Target = None,
    output: Annotated[Path | None, typer.Option(help="Write the JSON here too.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the roofline here (needs matplotlib).")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a suite against torch as called and torch at its best."""
    from accelops import TargetUnavailable
    from accelops.bench import report
    from accelops.bench.rows import Setting
    from accelops.bench.run import run

    with bad_input(TargetUnavailable):
        setting = Setting(device, dtype, batch, target)
        with progress_bar() as bars:
            task = bars.add_task(suite)
            result = run(suite, seconds, setting, match, progress=lambda done, total, name: bars.update(task, completed=done, total=total, description=name))  # fmt: skip
        if png is not None:
            report.picture(result, png)
    text = json.dumps(result.to_dict(), indent=1)
    if output is not None:
        output.write_text(text + "\n")
    if as_json:
        typer.echo(text)
    else:
        report.show(result, stdout)


@app.command()
def tune(
    what: Annotated[str, typer.Argument(help="A conv suite, or package.module:function that returns a model.")],
    input: Annotated[str | None, typer.Option(help="Shape of the model's input: 8,3,224,224.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Instead of the suite's own.")] = None,
    seconds: Annotated[float, typer.Option(help="Time for each problem.")] = 1.0,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="Of a suite: float32, bfloat16 or float16.")] = "float32",
    as_json: AsJson = False,
) -> None:
    """Measure all candidates on the problems of a network, and write your tuned table."""
    from accelops.bench import tuning
    from accelops.bench.rows import Setting

    with progress_bar() as bars:
        task = bars.add_task(f"tuning {what}")

        def progress(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        with bad_input():
            if what in tuning.SUITES:
                measurements = tuning.tune_suite(what, Setting(device, dtype, batch), seconds, progress)
            elif input is None:
                raise ValueError(f"what={what!r} is no suite ({', '.join(tuning.SUITES)}); a model needs --input too")
            else:
                measurements = tuning.tune_model(what, sizes(input, "--input"), seconds, progress)
    if as_json:
        return emit([tuning.to_dict(m) for m in measurements])
    table = Table("problem", "fastest", "times torch's speed")
    for m in measurements:
        table.add_row(escape(m.spec.to_json()), m.target, f"{m.ratio:.2f}")
    stdout.print(table)
