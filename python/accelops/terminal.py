"""What every command shares: the consoles, input that cannot be used, JSON, progress, and options of the same name.

With --json a command prints JSON alone on stdout; progress and messages go to stderr. Exit codes: 0 as wished, 1 a check
failed, 2 the input cannot be used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PIPED_WIDTH = 160  # where there is no terminal to ask
stdout, stderr = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH), Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
Target = Annotated[str | None, typer.Option(help="Ask for this target by name.")]
Device = Annotated[str, typer.Option(help="cpu, or cuda for a GPU.")]
BAD_INPUT = (ValueError, TypeError, FileNotFoundError, ModuleNotFoundError)


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
