"""Cores that are Verilated RTL, where hls/rtl has the kernel, clocked from the start to the interrupt: their cycles are
counted, not modelled. Every buffer is a region of their memory, and an access beside all of them is an error."""

from __future__ import annotations

import threading

from ..boards import Board
from ..registers import Kernel
from ..verilated import KERNELS, Region, Verilated, compile_rtl
from .compiled import library
from .csim import CSim
from .ddr import Ddr
from .slot import Arguments, Outcome


def rtl(kernel: Kernel, board: Board, ddr: Ddr) -> Rtl | CSim:
    """RTL of the kernels that have it, C++ of the others. Raises TargetUnavailable without Verilator or g++."""
    return Rtl(kernel, board, ddr) if kernel.top in KERNELS else CSim(kernel, board, ddr)


class Rtl:
    def __init__(self, kernel: Kernel, board: Board, ddr: Ddr):
        self.kernel, self._ddr, self._latency = kernel, ddr, board.burst.read_latency_cycles
        self._lock = threading.Lock()
        self._path = library(compile_rtl, kernel, board)

    def start(self, arguments: Arguments) -> Outcome:
        with self._lock:
            simulated = Verilated(self.kernel, self._path, self._latency)  # anew: an error would stay with it
            simulated.remember(*(Region(b.address, b.nbytes, self._ddr.host(b.address)) for b in self._ddr.buffers))
            run = simulated.start(**arguments)
            identity = simulated.read("CONFIG_HASH") << 32 | simulated.read("VERSION")
            return Outcome(identity, cycles=run.cycles)
