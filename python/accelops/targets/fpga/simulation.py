"""C-simulation of a kernel in this process: its C++ compiled by g++ with the headers of hls/sim, its top function called
with addresses of this process. Right results and counted trips; no time that means anything."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cached_property
from pathlib import Path

from .. import TargetUnavailable
from .boards import Board, hls_folder
from .registers import Kernel

_BY_KIND = {
    "read": ctypes.c_void_p,
    "write": ctypes.c_void_p,
    "uint32": ctypes.c_uint32,
    "int32": ctypes.c_int32,
    "float32": ctypes.c_float,
    "identity": ctypes.c_void_p,
}

# As hls/Makefile compiles for csim: a board computes each operation by itself, so nothing is contracted.
# Without -fno-gnu-unique all libraries of a process would count trips in the same variable.
FLAGS = ("-std=c++14", "-O2", "-ffp-contract=off", "-fno-gnu-unique", "-Wno-unknown-pragmas")


def compile_kernel(kernel: Kernel, board: Board, folder: Path, hls: Path | None = None) -> Path:
    """The shared library of `kernel` as it would be built for `board`, in `folder`; `hls` is where the sources lie.
    Raises TargetUnavailable without g++, RuntimeError with the compiler's words where the source does not compile."""
    if shutil.which("g++") is None:
        raise TargetUnavailable("C-simulation needs g++, which is not on the PATH: apt install g++")
    hls = hls or hls_folder()
    library = folder / f"{kernel.top}-{board.name}.so"
    includes = [f"-I{hls / part}" for part in ("include", "sim", f"generated/{board.name}")]
    sources = [str(hls / source) for source in kernel.sources]
    command = ["g++", *FLAGS, "-fPIC", "-shared", *includes, *sources, "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return library


class Simulated:
    """A compiled kernel. Not for several threads: its counters are the library's."""

    def __init__(self, kernel: Kernel, library: Path):
        self.kernel = kernel
        self.identity = 0  # as the last run wrote it: CONFIG_HASH in the upper 32 bits, VERSION in the lower
        self._library = ctypes.CDLL(str(library))
        self._top = getattr(self._library, kernel.top)
        self._top.argtypes = [_BY_KIND[a.kind] for a in kernel.arguments]
        self._top.restype = None

    @cached_property
    def _counts(self) -> ctypes.Array[ctypes.c_uint64]:
        get = self._library.accelops_trips
        get.restype = ctypes.POINTER(ctypes.c_uint64 * (len(self.kernel.stages) * self.kernel.engines))
        return get().contents

    def run(self, **arguments: int | float) -> dict[str, tuple[int, ...]]:
        """One start. Pointers are addresses, 0 where the call does not use one. Returns the trips of each stage, one
        number for each engine. Raises RuntimeError where the identity is not written, TypeError for wrong arguments."""
        identity = ctypes.c_uint64(0)
        arguments["identity"] = ctypes.addressof(identity)
        names = [a.name for a in self.kernel.arguments]
        if set(names) != set(arguments):
            raise TypeError(f"{self.kernel.top} takes {', '.join(names)}; given {', '.join(arguments)}")
        ctypes.memset(self._counts, 0, ctypes.sizeof(self._counts))
        self._top(*(arguments[name] for name in names))
        self.identity = identity.value
        if identity.value & 0xFFFFFFFF != self.kernel.version:
            raise RuntimeError(
                f"{self.kernel.top} says VERSION={identity.value & 0xFFFFFFFF}, expected {self.kernel.version}"
            )
        engines = self.kernel.engines
        counts = list(self._counts)
        return {stage: tuple(counts[i * engines : (i + 1) * engines]) for i, stage in enumerate(self.kernel.stages)}
