"""Compiled kernels, kept in the user's cache folder under a hash of all that they are made of: compiled once."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ..boards import Board, hls_folder
from ..registers import Kernel

Compile = Callable[[Kernel, Board, Path], Path]  # into a folder


def cache_folder() -> Path:
    """Below $ACCELOPS_CACHE, else the platform's cache folder for accelops."""
    asked = os.environ.get("ACCELOPS_CACHE")
    if asked:
        return Path(asked) / "kernels"
    from platformdirs import user_cache_path

    return user_cache_path("accelops") / "kernels"


def library(compile_: Compile, kernel: Kernel, board: Board) -> Path:
    """Raises as `compile_` does."""
    folder = cache_folder()
    path = folder / f"{kernel.top}-{board.name}-{_content(compile_.__module__, board.name)}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as build:
            os.replace(compile_(kernel, board, Path(build)), path)  # atomic: two processes may do it at once
    return path


@contextmanager
def own_copy(path: Path) -> Iterator[Path]:
    """For one board's use: a library keeps state in variables of its own, and loads once for each file."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copy(path, folder))


@cache
def _content(compiler: str, board: str) -> str:
    """Of every source that could matter, and of the module that says how they are compiled."""
    hls = hls_folder()
    sources = [path for path in hls.glob("*/*") if path.suffix in (".cpp", ".hpp", ".h", ".sv", ".svh")]
    sources += (hls / "generated" / board).glob("board.*")
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update((Path(__file__).parents[1] / f"{compiler.rpartition('.')[2]}.py").read_bytes())
    return digest.hexdigest()[:16]
