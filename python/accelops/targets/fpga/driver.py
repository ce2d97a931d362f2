"""A board that one can work with: buffers in its memory, and launches of its kernels.

A launch makes sure that the overlay with its kernel is loaded (and is what this version of accelops drives), flushes the
buffers that the host wrote, writes all arguments in one transfer, starts the kernel and polls it until its deadline:
PYNQ.remote has no interrupts. A kernel that misses its deadline leaves the board dead; the next launch loads the overlay
again. Launches of one board run in order, by one thread at a time: the v3.1 server does not lock what it keeps. A board
serves one client at a time: another that loads an overlay is not noticed.
"""

from __future__ import annotations

import atexit
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import overlay
from .arguments import Call, described, nothing, packed
from .errors import BoardError, BoardFault, BoardHung, BoardLost, OverlayMismatch
from .link import Link, emulation, report
from .model import Estimate
from .overlay import Overlay
from .pool import Buffer, Moved, Pool
from .registers import CONTROL, CONTROL_BITS, FIRST_ARGUMENT, Kernel, config_hash, kernels, offsets

SHORTEST_DEADLINE = 1.0  # seconds
PATIENCE = 10  # times what is modelled
FIRST_PAUSE, LONGEST_PAUSE = 50e-6, 5e-3  # seconds between polls; a poll over a network takes 0.4e-3

START = 1 << CONTROL_BITS["AP_START"]
FINISHED = 1 << CONTROL_BITS["AP_DONE"] | 1 << CONTROL_BITS["AP_IDLE"]


_open: set[Driver] = set()


@atexit.register
def _close_all() -> None:
    """The board's server keeps what a client allocated and did not free."""
    for driver in list(_open):
        driver.close()


@dataclass(frozen=True)
class Launch:
    """A launch that is done. `seconds` passed on this side, from the start to the poll that saw the end; `cycles` are what
    an emulated board reports (modelled), None on a real one. `switched`: another overlay was loaded for it."""

    kernel: str
    estimate: Estimate
    seconds: float
    cycles: int | None
    switched: bool


@dataclass
class Counts:
    """Of a driver's life. `loads`: overlays loaded; `switches`: those that took the place of another; `reloads`: those after
    a board was dead."""

    launches: int = 0
    loads: int = 0
    switches: int = 0
    reloads: int = 0


class Driver:
    """The board at the other end of `link`. `overlays`: a .bit, or a folder of them, to look at first."""

    def __init__(self, link: Link, overlays: Path | None = None):
        self.link, self.board, self.where = link, link.board, link.where
        self.counts = Counts()
        self.loaded: Overlay | None = None
        self._overlays = overlays
        self._dead = False
        self._pool = Pool(link)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"accelops {self.where}")
        self._last: Future[Launch] | None = None
        self.emulation = emulation(link)
        _open.add(self)

    @property
    def emulated(self) -> bool:
        return self.emulation is not None

    @property
    def lost(self) -> BoardLost | None:
        """How the connection broke, if it did."""
        return self._pool.lost

    @property
    def held(self) -> int:
        """Bytes of the buffers in use."""
        return self._pool.held

    @property
    def moved(self) -> Moved:
        """Bytes flushed and fetched."""
        return self._pool.moved

    def allocate(self, nbytes: int) -> Buffer:
        """A buffer of the board's memory, at least `nbytes`, not initialised. Raises BoardMemoryExhausted."""
        with self._pool.calling():
            if self.link.loads_first and self.loaded is None:
                self._load(next(iter(self.board.overlays.values()))[0])
            self._revive()
            return self._pool.take(nbytes)

    def run(self, kernel: str, estimate: Estimate, /, **arguments: Any) -> Launch:
        """One launch of `kernel`, after all that were submitted. Pointers are a Buffer, (Buffer, byte offset) or None, where
        the call does not use one; scalars int or float. `estimate`: what it is modelled to cost, from which its deadline
        follows. Raises BoardError; its outputs cannot be read then."""
        call = packed(kernel, estimate, arguments, self._pool)
        if self._last is not None:
            wait([self._last])
        return self._launch(call)

    def submit(self, kernel: str, estimate: Estimate, /, **arguments: Any) -> Future[Launch]:
        """As `run`, by the board's own thread, in the order of submission. Buffers may be read at once (that waits), but
        not from a callback of the future, which that thread runs."""
        call = packed(kernel, estimate, arguments, self._pool)
        future = self._worker.submit(self._launch, call)
        for buffer in call.buffers:
            buffer.pending = future
        self._last = future
        return future

    def close(self) -> None:
        """Finish what was submitted, give all memory back, that of buffers in use too. Of no use afterwards; again is
        nothing."""
        self._worker.shutdown()
        _open.discard(self)
        if self.lost is None:
            with suppress(BoardError), self._pool.calling():
                self._revive()
                self._pool.close()
            self._pool.lost = BoardLost(f"{self.where}: this driver was closed")
        self.link.close()

    def _launch(self, call: Call) -> Launch:
        with self._pool.calling():
            for buffer in call.inputs:
                buffer.usable()
            switched = self._load(call.kernel.top)
            for buffer in call.buffers:
                buffer.flush()
            interrupted = BoardHung(f"{self.where}: waiting for {call.kernel.top} was interrupted")
            for buffer, offset in call.outputs:
                buffer.fail(offset, interrupted)
            try:
                seconds = self._execute(call.kernel, call.words, self._deadline(call.estimate))
                cycles = self._reported(call.kernel) if self.emulated else None
            except BoardError as error:
                for buffer, offset in call.outputs:
                    buffer.fail(offset, error)
                raise
            for buffer, offset in call.outputs:
                buffer.written(offset)
            self.counts.launches += 1
            return Launch(call.kernel.top, call.estimate, seconds, cycles, switched)

    def _load(self, kernel: str) -> bool:
        """Make sure that `kernel` can be started. Whether another overlay had to go for it."""
        if self.loaded is not None and not self._dead and kernel in self.loaded.kernels:
            return False
        before, dead = self.loaded, self._dead
        found = self._found(kernel)
        self.loaded = None  # until what is loaded is known to be right
        self.link.load(found)
        for other in found.kernels:
            self._check_identity(kernels()[other], found)
        self.loaded, self._dead = found, False
        self.counts.loads += 1
        self.counts.switches += before is not None and not dead
        self.counts.reloads += dead
        return before is not None and not dead

    def _revive(self) -> None:
        """A kernel that hangs may still write: no memory goes back to the board before it is gone."""
        if self._dead:
            loaded = self.loaded.kernels if self.loaded else next(iter(self.board.overlays.values()))
            self._load(loaded[0])

    def _found(self, kernel: str) -> Overlay:
        if self.loaded is not None and kernel in self.loaded.kernels:
            return self.loaded
        return overlay.find(self.board, kernel, self._overlays, emulated=self.emulated)

    def _check_identity(self, kernel: Kernel, loaded: Overlay) -> None:
        """One start with nothing to do: only then are VERSION and CONFIG_HASH valid."""
        self._execute(kernel, nothing(kernel), SHORTEST_DEADLINE)
        base, at = overlay.base_address(self.board, kernel.top), offsets(kernel)
        found = {name: self.link.read(base + at[name]) for name in ("VERSION", "CONFIG_HASH")}
        expected = {"VERSION": kernel.version, "CONFIG_HASH": config_hash(kernel, self.board)}
        if found != expected:
            said, wanted = (", ".join(f"{name}={value:#x}" for name, value in of.items()) for of in (found, expected))
            raise OverlayMismatch(
                f"{self.where}: {kernel.top} of {loaded.bit} says {said}; this version of accelops drives {wanted} on "
                f"{self.board.name}: build the overlay again from its hls folder"
            )

    def _execute(self, kernel: Kernel, words: bytes, deadline: float) -> float:
        """Start and wait. Raises BoardHung."""
        base = overlay.base_address(self.board, kernel.top)
        self.link.write(base + FIRST_ARGUMENT, words)
        self._dead = True  # until it is seen to end, whatever interrupts the wait
        started = time.monotonic()
        self.link.write(base, START.to_bytes(4, "little"))
        pause = FIRST_PAUSE
        while not self.link.read(base) & FINISHED:
            waited = time.monotonic() - started
            if waited > deadline:
                raise BoardHung(self._dump(kernel, words, waited))
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)
        self._dead = False
        return time.monotonic() - started

    def _deadline(self, estimate: Estimate) -> float:
        simulating = estimate.cycles * self.emulation.seconds_per_cycle if self.emulation else 0.0
        return max(SHORTEST_DEADLINE, PATIENCE * estimate.seconds) + simulating

    def _dump(self, kernel: Kernel, words: bytes, waited: float) -> str:
        base, at = overlay.base_address(self.board, kernel.top), offsets(kernel)
        registers = {name: self.link.read(base + at[name]) for name in (*CONTROL, "VERSION", "CONFIG_HASH")}
        control = [bit for bit, place in CONTROL_BITS.items() if registers["CTRL"] >> place & 1]
        return (
            f"{self.where}: {kernel.top} did not finish in {waited:.1f} s. Registers: "
            f"{', '.join(f'{name}={value:#x}' for name, value in registers.items())} ({' '.join(control) or 'no bit set'}). "
            f"Arguments: {described(kernel, words)}. The board counts as dead; its next use loads the overlay again"
        )

    def _reported(self, kernel: Kernel) -> int:
        said = report(self.link)
        if said.faults:
            raise BoardFault(f"{self.where}: {kernel.top}: {'; '.join(said.faults)}")
        return said.cycles
