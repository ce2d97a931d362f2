"""Cores that are the kernels' own C++, compiled by g++ as for C-simulation, run on the board's memory.

A compiled kernel is kept in the user's cache folder under a hash of all that it is made of, so that it is compiled once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from functools import cache
from pathlib import Path

from ..boards import Board, hls_folder
from ..registers import Kernel
from ..simulation import FLAGS, Simulated, compile_kernel
from .ddr import Ddr
from .slot import Arguments, Outcome


def csim(kernel: Kernel, board: Board, ddr: Ddr) -> CSim:
    return CSim(kernel, library(kernel, board), ddr)


class CSim:
    def __init__(self, kernel: Kernel, path: Path, ddr: Ddr):
        self.kernel, self._ddr = kernel, ddr
        self._lock = threading.Lock()  # a launch that a reload overtook may still compute
        # A copy of its own, for the library counts trips in variables of its own: several boards live in one process.
        with tempfile.TemporaryDirectory() as folder:
            self._simulated = Simulated(kernel, Path(shutil.copy(path, folder)))

    def start(self, arguments: Arguments) -> Outcome:
        pointers = {a.name: self._ddr.host(int(arguments[a.name])) for a in self.kernel.arguments if a.pointer}
        with self._lock:
            trips = self._simulated.run(**{**arguments, **pointers})
            return Outcome(self._simulated.identity, trips=trips)


def cache_folder() -> Path:
    """Below $ACCELOPS_CACHE, else the platform's cache folder for accelops."""
    asked = os.environ.get("ACCELOPS_CACHE")
    if asked:
        return Path(asked) / "csim"
    from platformdirs import user_cache_path

    return user_cache_path("accelops") / "csim"


def library(kernel: Kernel, board: Board, folder: Path | None = None) -> Path:
    """The compiled kernel, in the cache folder or `folder`. Raises as `compile_kernel` does."""
    folder = folder or cache_folder()
    path = folder / f"{kernel.top}-{board.name}-{_content(kernel.op, board.name)}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as build:
        os.replace(compile_kernel(kernel, board, Path(build)), path)  # atomic: two processes may do it at once
    return path


@cache
def _content(op: str, board: str) -> str:
    """Of the sources that a kernel of `op` may include, and of how they are compiled."""
    hls = hls_folder()
    sources = [path for part in (op, "include", "sim") for path in (hls / part).glob("*.[ch]*")]
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted([*sources, hls / "generated" / board / "board.hpp"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
