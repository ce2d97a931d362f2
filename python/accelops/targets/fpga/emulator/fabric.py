"""The programmable logic: which kernels a bitstream puts on the bus, and their launches.

A launch is checked, then computed in a thread of its own; its cycles are those of the cycle model, or counted where the
slot holds RTL. What computes cannot be stopped, so loading a bitstream waits until it has ended.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..boards import Board
from ..registers import Kernel, config_hash, kernels
from . import checks, handoff
from .checks import Meaning
from .clocks import Clocks
from .ddr import Ddr
from .faults import Faults, Refused
from .slot import Arguments, Core, Outcome, Slot

Slots = Callable[[Kernel, Board, Ddr], Core]
KEPT = 256  # launches that can be looked up
TOO_FAST = 1.01  # times the clock for which the kernels are built
LOADING_SECONDS = 25.0


@dataclass(frozen=True)
class Launch:
    """`modelled_*` by the cycle model, the seconds at the clock that is set; `trips` counted in C-simulation, `cycles` in
    RTL, else None. `wall_seconds` of simulating it say nothing of a board."""

    kernel: str
    arguments: Arguments
    modelled_cycles: int
    modelled_bytes: int
    modelled_seconds: float
    trips: dict[str, tuple[int, ...]] | None
    cycles: int | None
    wall_seconds: float
    faults: tuple[str, ...]


class Fabric:
    """`lock` is the board's: held by whoever calls, but for `load`."""

    def __init__(
        self,
        board: Board,
        ddr: Ddr,
        clocks: Clocks,
        faults: Faults,
        slots: Slots,
        told: Callable[[Launch], None],
        lock: threading.RLock,
    ):
        self.slots: dict[int, Slot] = {}  # by the address of their registers
        self.launches: deque[Launch] = deque(maxlen=KEPT)
        self._board, self._ddr, self._clocks, self._faults = board, ddr, clocks, faults
        self._make, self._told = slots, told
        self._cores: dict[str, Core] = {}
        self._computing: dict[Slot, set[int]] = {}  # with the buffers that they use
        self._changed = threading.Condition(lock)
        self._wrong_hash = 0

    def load(self, bitstream: bytes) -> None:
        """A .bit, or its data as a client sends it. All kernels are idle afterwards; memory keeps its contents."""
        if self._faults.take("bad-crc"):
            bitstream = bitstream[:-1] + bytes([bitstream[-1] ^ 1])
        contents = handoff.read(bitstream)
        for wrong in self._mismatches(contents):
            raise Refused(wrong)
        held = {top: kernels()[top] for top in contents.kernels}
        try:
            self._cores |= {
                top: self._make(k, self._board, self._ddr) for top, k in held.items() if top not in self._cores
            }
        except (RuntimeError, OSError) as error:  # what compiles them is missing, or fails
            raise Refused(str(error)) from error
        with self._changed:
            self.slots = {}
            self._changed.notify_all()  # a slow launch stops waiting
            if not self._changed.wait_for(lambda: not self._computing, LOADING_SECONDS):
                raise Refused(
                    f"a launch was still computed {LOADING_SECONDS:g} s after its bitstream was to be replaced"
                )
            self._wrong_hash = 1 if self._faults.take("wrong-overlay") else 0
            self.slots = {contents.kernels[top]["base"]: Slot(kernel, self._launch) for top, kernel in held.items()}

    def _mismatches(self, contents: handoff.Contents) -> Iterator[str]:
        if contents.board != self._board.name:
            yield f"this bitstream is for {contents.board}, the board is a {self._board.name}"
        for top, built in contents.kernels.items():
            kernel = kernels().get(top)
            if kernel is None:
                yield f"this bitstream holds the kernel {top}, which is none of {', '.join(kernels())}"
            elif (built["version"], built["config_hash"]) != (kernel.version, config_hash(kernel, self._board)):
                yield f"this bitstream holds another configuration of {top} than the sources here: write it again"

    def user(self, address: int) -> str | None:
        """The kernel that computes with the buffer at `address`."""
        return next((slot.kernel.top for slot, used in self._computing.items() if address in used), None)

    def _launch(self, slot: Slot, arguments: Arguments) -> None:
        """Raises Refused for what cannot be launched."""
        mhz, limit = self._clocks.pl_mhz, self._board.clock_mhz * TOO_FAST
        if not 0 < mhz <= limit:
            top = slot.kernel.top
            raise Refused(f"{top}: PL clock 0 is set to {mhz:g} MHz, the kernels are built for {self._board.clock_mhz}")
        found = checks.checked(slot.kernel, self._board, arguments, self._ddr)
        written = found.reach.writes
        used = {range_: self._ddr.holding(*range_) for named in (found.reach.reads, written) for range_ in _all(named)}
        for range_ in _all(written):
            used[range_].stale = used[range_].defined = True
        if self._faults.take("hang"):
            return  # for good: AP_START stays set until a bitstream is loaded
        slow = self._faults.take("slow")
        self._computing[slot] = {buffer.address for buffer in used.values()}
        waits = slow.seconds if slow else 0.0
        threading.Thread(target=self._compute, args=(slot, arguments, found, waits), daemon=True).start()

    def _compute(self, slot: Slot, arguments: Arguments, found: Meaning, waits: float) -> None:
        begun = time.monotonic()
        wrong, outcome = [], None
        try:
            if not self._overtaken(slot, waits):
                outcome = self._cores[slot.kernel.top].start(arguments)
        except (RuntimeError, OSError) as error:
            wrong.append(f"{slot.kernel.top}: {error}")
        with self._changed:
            del self._computing[slot]
            self._changed.notify_all()
            if slot not in self.slots.values():
                return
            wrong += self._objections(slot, found, outcome)
            launch = self._record(slot, arguments, found, outcome, time.monotonic() - begun, wrong)
            if outcome is None or wrong:
                slot.fail("; ".join(wrong))
            else:
                slot.finish(outcome.identity ^ self._wrong_hash << 32)
        self._told(launch)

    def _overtaken(self, slot: Slot, seconds: float) -> bool:
        """Waits; whether another bitstream came meanwhile."""
        with self._changed:
            return self._changed.wait_for(lambda: slot not in self.slots.values(), seconds)

    def _objections(self, slot: Slot, found: Meaning, outcome: Outcome | None) -> list[str]:
        wrong = checks.after(slot.kernel, self._ddr)
        if outcome and outcome.trips not in (None, found.estimate.trips):
            wrong.append(f"{slot.kernel.top}: counted trips {outcome.trips}, modelled {found.estimate.trips}")
        return wrong

    def _record(
        self,
        slot: Slot,
        arguments: Arguments,
        found: Meaning,
        outcome: Outcome | None,
        wall_seconds: float,
        wrong: list[str],
    ) -> Launch:
        estimate = found.estimate
        launch = Launch(
            kernel=slot.kernel.top,
            arguments=arguments,
            modelled_cycles=estimate.cycles,
            modelled_bytes=estimate.bytes,
            modelled_seconds=max(estimate.cycles / (self._clocks.pl_mhz * 1e6), estimate.seconds),
            trips=outcome and outcome.trips,
            cycles=outcome and outcome.cycles,
            wall_seconds=wall_seconds,
            faults=tuple(wrong),
        )
        self.launches.append(launch)
        return launch


def _all(named: dict[str, list[tuple[int, int]]]) -> Iterator[tuple[int, int]]:
    return (range_ for ranges in named.values() for range_ in ranges)
