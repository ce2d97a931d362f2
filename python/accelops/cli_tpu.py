"""The commands `accelops tpu`: what libtpu's compiler makes of the kernels for TPUs, where there is no TPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from accelops.terminal import AsJson, bad_input, emit, progress_bar, stdout

if TYPE_CHECKING:
    from accelops.bench.tpu_aot.cases import Case
    from accelops.bench.tpu_aot.rows import Row

app = typer.Typer(no_args_is_help=True, help="TPUs that are not there: compile for them, and read the estimates.")

ALL = "v4,v5e,v5p,v6e,v7x"
Chips = Annotated[str, typer.Option("--target", help="Generations, with commas between.")]
Batch = Annotated[int, typer.Option(min=1, help="Of a network's suite.")]
Dtype = Annotated[str, typer.Option(help="Of a network's suite.")]
Match = Annotated[str, typer.Option(help="Only cases whose name or direction contains this.")]
Deadline = Annotated[float, typer.Option(min=1, help="Seconds for each pass of the compiler.")]
Output = Annotated[Path | None, typer.Option(help="Write the JSON here too.")]


@app.command()
def aot(
    target: Chips = ALL,
    suite: Annotated[str | None, typer.Option(help="A network's name, adam or bucket.")] = None,
    op: Annotated[str | None, typer.Option(help="conv, adam or bucket, with --shape, instead of a suite.")] = None,
    shape: Annotated[str | None, typer.Option(help="64,128,56,56:128,4,3,3 (conv), 25557032:161 (others).")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Of --op conv.")] = 1,
    baseline: Annotated[str, typer.Option(help="torch, its own ops as lowered stock, or none.")] = "torch",
    batch: Batch = 64,
    dtype: Dtype = "bfloat16",
    match: Match = "",
    deadline: Deadline = 300.0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Compile cases for TPU generations, and print what the compiler estimates. Exits 1 where a case does not compile."""
    from accelops.bench.tpu_aot import result

    with bad_input():
        if baseline not in ("torch", "none"):
            raise ValueError(f"--baseline={baseline!r} is unknown; choose torch or none")
        cases = chosen_cases(suite, op, shape, stride, batch, dtype, match)
    with compiling("compiling") as progress:
        found = result.run(cases, target, baseline == "torch", deadline, progress)
    text = json.dumps(found.to_dict(), indent=1)
    if output is not None:
        output.write_text(text + "\n")
    if as_json:
        typer.echo(text)
    else:
        show(found.rows)
    raise typer.Exit(1 if any(row.error for row in found.rows) else 0)


@app.command()
def tune(
    suite: Annotated[str, typer.Argument(help="A network's name.")],
    target: Chips = ALL,
    batch: Batch = 64,
    dtype: Dtype = "bfloat16",
    match: Match = "",
    deadline: Deadline = 300.0,
    folder: Annotated[Path | None, typer.Option(help="Of the tables; without, those of this installation.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compile all Configs of a network's grouped convolutions, and write the tables that the lowerings choose by."""
    from accelops.bench.tpu_aot import tuning

    with bad_input():
        cases = chosen_cases(suite, None, None, 1, batch, dtype, match)
    with compiling("tuning") as progress:
        choices = tuning.tune(cases, target, deadline, progress)
        files = tuning.write(choices, folder)
    if as_json:
        return emit({"tables": [str(file) for file in files], "choices": [choice.to_dict() for choice in choices]})
    table = Table("chip", "problem", "direction", "Config", "times XLA's own speed", caption=caption())
    for choice in choices:
        table.add_row(choice.chip, choice.name, choice.direction, escape(str(choice.config)), f"{choice.ratio:.2f}")
    stdout.print(table)
    for file in files:
        stdout.print(f"written: {file}", highlight=False, soft_wrap=True)


def chosen_cases(
    suite: str | None, op: str | None, shape: str | None, stride: int, batch: int, dtype: str, match: str
) -> list[Case]:
    """Raises ValueError where neither a suite nor a problem is named, or nothing matches."""
    from accelops.bench.tpu_aot import cases

    if (suite is None) == (op is None) or (op is None) != (shape is None):
        raise ValueError(f"name a --suite ({', '.join(cases.SUITES)}), or --op and --shape, but not both")
    found = cases.suite(suite, batch, dtype) if suite is not None else cases.described(op, shape, stride)
    matching = [case for case in found if match in f"{case.name} {getattr(case.spec, 'direction', '')}"]
    if not matching:
        raise ValueError(f"--match={match!r}: no case of {suite} has that in its name")
    return matching


@contextmanager
def compiling(what: str) -> Iterator[Any]:
    """Progress over cases, and a message where jax or libtpu is missing."""
    from accelops import TargetUnavailable

    with bad_input(TargetUnavailable), progress_bar() as bars:
        task = bars.add_task(what)
        yield lambda done, total, name: bars.update(task, completed=done, total=total, description=f"{what} {name}")


def caption() -> str:
    from accelops.bench.tpu_aot import NOT_MEASURED

    return NOT_MEASURED


def show(rows: list[Row]) -> None:
    table = Table(title="accelops tpu aot", caption=f"{caption()}; ratios: above 1 accelops is faster")
    for name, justify in (("chip", "left"), ("problem", "left"), ("Config", "left"), ("estimate us", "right"), ("source", "left"), ("stock us", "right"), ("vs stock", "right"), ("temporary MB", "right"), ("aliased", "right"), ("compile s", "right")):  # fmt: skip
        table.add_column(name, justify=justify)
    for row in rows:
        name = f"{row.name} {row.direction}" + (f" x{row.multiplicity}" if row.multiplicity > 1 else "")
        if row.ours is None:
            table.add_row(row.chip, name, "", "", f"[red]{escape(row.error)}[/]")
            continue
        table.add_row(
            row.chip,
            name,
            ", ".join(f"{key}={value}" for key, value in row.config.items() if key != "type"),
            "" if row.estimate_us is None else f"{row.estimate_us:.1f}",
            row.source,
            "" if row.stock is None else f"{row.stock.estimate_us:.1f}",
            "" if row.ratio_vs_stock is None else f"{row.ratio_vs_stock:.2f}",
            f"{row.ours.temporary_bytes / 1e6:.1f}",
            f"{row.ours.aliased} of {row.ours.donated}",
            f"{row.ours.compile_s:.1f}",
        )
    stdout.print(table)
    for reason in dict.fromkeys(row.no_ratio for row in rows if row.no_ratio):
        stdout.print(f"no ratio: {reason}", highlight=False, markup=False)
