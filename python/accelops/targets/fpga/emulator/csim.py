"""Cores that are the kernels' own C++, compiled by g++ as for C-simulation, run on the board's memory."""

from __future__ import annotations

import threading

from ..boards import Board
from ..registers import Kernel
from ..simulation import Simulated, compile_kernel
from .compiled import library, own_copy
from .ddr import Ddr
from .slot import Arguments, Outcome


def csim(kernel: Kernel, board: Board, ddr: Ddr) -> CSim:
    """Raises TargetUnavailable without g++."""
    return CSim(kernel, board, ddr)


class CSim:
    def __init__(self, kernel: Kernel, board: Board, ddr: Ddr):
        self.kernel, self._ddr = kernel, ddr
        self._lock = threading.Lock()  # a launch that a reload overtook may still compute
        with own_copy(library(compile_kernel, kernel, board)) as path:
            self._simulated = Simulated(kernel, path)

    def start(self, arguments: Arguments) -> Outcome:
        pointers = {a.name: self._ddr.host(int(arguments[a.name])) for a in self.kernel.arguments if a.pointer}
        with self._lock:
            trips = self._simulated.run(**{**arguments, **pointers})
            return Outcome(self._simulated.identity, trips=trips)
