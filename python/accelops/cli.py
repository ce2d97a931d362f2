"""The command `accelops`: info, demo, bench, tune, explain, verify.

With --json a command prints JSON alone on stdout; progress and messages go to stderr. Exit codes: 0 as wished, 1 a check
failed, 2 the input cannot be used. What a command needs is imported inside it, so that --help waits for torch
alone, which comes with the package.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from accelops.dispatch.explain import Explanation

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Convolution, Adam and all-reduce bucketing, fast behind PyTorch's own interface.",
    pretty_exceptions_enable=False,
)
explain_app = typer.Typer(no_args_is_help=True, help="Which implementation runs a problem, and why no other.")
app.add_typer(explain_app, name="explain")
PIPED_WIDTH = 160  # where there is no terminal to ask
stdout, stderr = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH), Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
Target = Annotated[str | None, typer.Option(help="Ask for this target by name.")]
BAD_INPUT = (ValueError, TypeError, FileNotFoundError, ModuleNotFoundError)


def main() -> None:
    app(prog_name="accelops")


@contextmanager
def bad_input(*also: type[Exception]) -> Iterator[None]:
    """Ends the command with the message, and no traceback, where its input cannot be used."""
    try:
        yield
    except (*BAD_INPUT, *also) as error:
        stderr.print(f"[red]accelops:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from None


def emit(value: object) -> None:
    typer.echo(json.dumps(value, indent=1))


def progress_bar() -> Progress:
    """On stderr, gone when done, so that stdout is the result alone."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=stderr, transient=True)


def sizes(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise ValueError(
            f"{option}={text!r}: expected whole numbers with commas between, such as 16,144,56,56"
        ) from None


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
    with progress_bar() as bars:
        tasks: dict[str, Any] = {}

        def advance(name: str, total: int, loss: float | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            text = f"{name}: " + ("each step compared with fp64" if loss is None else f"loss {loss:.4f}")
            bars.update(tasks[name], advance=1, description=text)

        outcome = demonstration.run(options, loaded, advance)
    if as_json:
        emit(outcome.to_dict())
    else:
        demonstration.show(outcome, stdout)
    raise typer.Exit(0 if outcome.losses_agree else 1)


@app.command()
def bench(
    suite: Annotated[str, typer.Argument(help="adam, bucket, overhead, steps, or a network's name.")],
    seconds: Annotated[float, typer.Option(help="Time for each row.")] = 1.0,
    batch: Annotated[int | None, typer.Option(min=1, help="Instead of the suite's own.")] = None,
    match: Annotated[str, typer.Option(help="Only rows whose name contains this.")] = "",
    target: Target = None,
    output: Annotated[Path | None, typer.Option(help="Write the JSON here too.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the roofline here (needs matplotlib).")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a suite against torch as called and torch at its best."""
    from accelops import TargetUnavailable
    from accelops.bench import report
    from accelops.bench.run import run

    with bad_input(TargetUnavailable):
        with progress_bar() as bars:
            task = bars.add_task(suite)
            result = run(suite, seconds, batch, target, match, lambda done, total, name: bars.update(task, completed=done, total=total, description=name))  # fmt: skip
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
    as_json: AsJson = False,
) -> None:
    """Measure all candidates on the problems of a network, and write your tuned table."""
    from accelops.bench import suites, tuning

    with progress_bar() as bars:
        task = bars.add_task(f"tuning {what}")

        def progress(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        with bad_input():
            if what in suites.NETWORKS:
                measurements = tuning.tune_suite(what, batch, seconds, progress)
            elif input is None:
                raise ValueError(f"what={what!r} is no suite ({', '.join(suites.NETWORKS)}); a model needs --input too")
            else:
                measurements = tuning.tune_model(what, sizes(input, "--input"), seconds, progress)
    if as_json:
        return emit([tuning.to_dict(m) for m in measurements])
    table = Table("problem", "fastest", "times torch's speed")
    for m in measurements:
        table.add_row(escape(m.spec.to_json()), m.target, f"{m.ratio:.2f}")
    stdout.print(table)


@explain_app.command("conv")
def explain_conv(
    input: Annotated[str, typer.Option(help="Shape: 16,144,56,56")],
    weight: Annotated[str, typer.Option(help="Shape: 144,1,3,3")],
    stride: str = "1",
    padding: str = "0",
    dilation: str = "1",
    output_padding: str = "0",
    groups: int = 1,
    transposed: Annotated[bool, typer.Option("--transposed")] = False,
    bias: Annotated[bool, typer.Option("--bias")] = False,
    activation: Annotated[str, typer.Option(help="none, relu, silu or gelu, fused.")] = "none",
    dtype: str = "float32",
    channels_last: Annotated[bool, typer.Option("--channels-last")] = False,
    device: str = "cpu",
    direction: Annotated[str | None, typer.Option(help="fprop, dgrad or wgrad; default: all.")] = None,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """A convolution, in all three directions."""
    from accelops import TargetUnavailable, explain

    with bad_input(TargetUnavailable):
        shapes = sizes(input, "--input"), sizes(weight, "--weight")
        lists = [sizes(text, option) for text, option in ((stride, "--stride"), (padding, "--padding"), (dilation, "--dilation"), (output_padding, "--output-padding"))]  # fmt: skip
        refuse_what_torch_refuses(*shapes, *lists, transposed, groups, dtype, activation, direction)
        names = ("stride", "padding", "dilation", "output_padding")
        problem: dict[str, Any] = {name: v[0] if len(v) == 1 else v for name, v in zip(names, lists, strict=True)}
        found = explain(
            "conv",
            target,
            input=shapes[0],
            weight=shapes[1],
            groups=groups,
            transposed=transposed,
            bias=bias,
            activation=activation,
            dtype=dtype,
            memory_format="channels_last" if channels_last else "contiguous",
            device=device,
            direction=direction,
            **problem,
        )
    show_explanation(found, as_json)


def refuse_what_torch_refuses(
    input: tuple[int, ...],
    weight: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    output_padding: tuple[int, ...],
    transposed: bool,
    groups: int,
    dtype: str,
    activation: str,
    direction: str | None,
) -> None:
    """Raises ValueError, with torch's own words where torch is asked: on an empty batch, which computes nothing."""
    import torch

    from accelops.kernels.conv.spec import ACTIVATIONS, DIRECTIONS
    from accelops.kernels.spec import ITEMSIZE

    for option, value, known in (("--dtype", dtype, tuple(ITEMSIZE)), ("--activation", activation, ACTIVATIONS), ("--direction", direction or "fprop", DIRECTIONS)):  # fmt: skip
        if value not in known:
            raise ValueError(f"{option}={value!r} is unknown; choose one of {', '.join(known)}")
    if len(input) not in (3, 4, 5) or len(weight) != len(input) or min(input + weight) < 0:
        raise ValueError(
            f"--input={input} and --weight={weight}: expected 3, 4 or 5 sizes each, N C and 1 to 3 spatial"
        )
    operands = (torch.empty((0, *input[1:])), torch.empty(weight), None)
    try:
        torch.ops.aten.convolution(*operands, stride, padding, dilation, transposed, output_padding, groups)
    except RuntimeError as error:
        raise ValueError(f"torch refuses this convolution: {error}") from None


@explain_app.command("adam")
def explain_adam(
    numel: Annotated[int, typer.Option(min=1, help="Elements in all.")],
    tensors: Annotated[int, typer.Option(min=1)] = 1,
    dtype: str = "float32",
    state_dtype: str = "float32",
    amsgrad: Annotated[bool, typer.Option("--amsgrad")] = False,
    master: Annotated[bool, typer.Option("--master", help="fp32 copies of the parameters.")] = False,
    ema: Annotated[bool, typer.Option("--ema", help="An average of the parameters is kept.")] = False,
    device: str = "cpu",
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """A step of Adam or AdamW over a list of parameters."""
    from accelops import TargetUnavailable, explain

    with bad_input(TargetUnavailable):
        found = explain("adam", target, numel=numel, tensors=tensors, dtype=dtype, state_dtype=state_dtype, amsgrad=amsgrad, master=master, ema=ema, device=device)  # fmt: skip
    show_explanation(found, as_json)


@explain_app.command("bucket")
def explain_bucket(
    direction: Annotated[str, typer.Argument(help="pack, unpack or reduce.")],
    numel: Annotated[int, typer.Option(min=1, help="Elements in all.")],
    tensors: Annotated[int, typer.Option(min=1)] = 1,
    dtype: str = "float32",
    wire_dtype: str = "float32",
    ranks: Annotated[int, typer.Option(min=1)] = 1,
    error_feedback: Annotated[bool, typer.Option("--error-feedback")] = False,
    device: str = "cpu",
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Packing, unpacking or reducing the flat buffers of all-reduce."""
    from accelops import TargetUnavailable, explain

    with bad_input(TargetUnavailable):
        found = explain("bucket", target, direction=direction, numel=numel, tensors=tensors, dtype=dtype, wire_dtype=wire_dtype, ranks=ranks, error_feedback=error_feedback, device=device)  # fmt: skip
    show_explanation(found, as_json)


def show_explanation(found: Explanation, as_json: bool) -> None:
    if as_json:
        emit(found.to_dict())
    else:
        stdout.print(escape(str(found)), highlight=False, soft_wrap=True)
