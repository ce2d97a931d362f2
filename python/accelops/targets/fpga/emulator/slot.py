"""A kernel's slot: its AXI-Lite registers as Vitis HLS builds them with ap_ctrl_hs (AMD UG1399, "S_AXILITE Control
Register Map"), around whatever computes (Core): HLS C++ compiled for this processor, or Verilated RTL.

CTRL: AP_START stays set until the kernel is done; AP_DONE and AP_READY are cleared by being read. ISR's bits toggle when
ones are written. VERSION and CONFIG_HASH hold what the kernel wrote when it last ran.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..registers import CONTROL, CONTROL_BITS, FIRST_ARGUMENT, Argument, Kernel, offsets
from .faults import Refused

Arguments = dict[str, int | float]
START, DONE, IDLE, READY = (1 << CONTROL_BITS[f"AP_{bit}"] for bit in ("START", "DONE", "IDLE", "READY"))
RESTART = 1 << CONTROL_BITS["AUTO_RESTART"]


@dataclass(frozen=True)
class Outcome:
    """Of a launch. `identity`: CONFIG_HASH in the upper 32 bits, VERSION in the lower, as the kernel wrote them. `trips`:
    as C-simulation counts them, None in RTL; `cycles`: as RTL simulation counts them, None in C-simulation."""

    identity: int
    trips: dict[str, tuple[int, ...]] | None = None
    cycles: int | None = None


class Core(Protocol):
    """What computes in a slot. Pointers are physical addresses; those that the launch does not use may be anything."""

    def start(self, arguments: Arguments) -> Outcome: ...


class Slot:
    """Registers of one kernel. `launch(slot, arguments)` begins a launch, and `finish` or `fail` is called when it ends;
    what `launch` refuses never started. Not for several threads at once."""

    def __init__(self, kernel: Kernel, launch: Callable[[Slot, Arguments], None]):
        self.kernel = kernel
        self._launch = launch
        self._at = offsets(kernel)
        self._words: dict[int, int] = {}
        self._busy = self._done = self._ready = False
        self._failure: str | None = None

    def read(self, offset: int) -> int:
        if offset != CONTROL["CTRL"]:
            return self._words.get(offset, 0)
        if self._failure:
            failure, self._failure = self._failure, None
            raise Refused(failure)
        value = START * self._busy | DONE * self._done | IDLE * (not self._busy) | READY * self._ready
        self._done = self._ready = False
        return value

    def write(self, offset: int, value: int) -> None:
        if offset == CONTROL["CTRL"]:
            self._control(value)
        elif offset == CONTROL["ISR"]:
            self._words[offset] = self._words.get(offset, 0) ^ (value & 3)
        elif offset in (CONTROL["GIER"], CONTROL["IER"]):
            self._words[offset] = value & (1 if offset == CONTROL["GIER"] else 3)
        elif FIRST_ARGUMENT <= offset < self._at["VERSION"]:
            if self._busy:
                raise Refused(f"{self.kernel.top} is running: an argument was written at {offset:#x} before it is idle")
            self._words[offset] = value
        # Elsewhere nothing answers to a write: the identity is the kernel's, and the rest is reserved.

    def finish(self, identity: int) -> None:
        self._words[self._at["VERSION"]], self._words[self._at["CONFIG_HASH"]] = identity & 0xFFFFFFFF, identity >> 32
        self._end()

    def fail(self, failure: str) -> None:
        """The launch ended, but wrongly; the next to read CTRL is told."""
        self._failure = failure
        self._end()

    def _control(self, value: int) -> None:
        if value & RESTART:
            raise Refused(f"{self.kernel.top}: AUTO_RESTART is not emulated; start every launch")
        if not value & START:
            return
        if self._busy:
            raise Refused(f"{self.kernel.top} was started before it was ready: wait for AP_DONE or AP_IDLE")
        self._done = self._ready = False
        self._busy = True
        try:
            self._launch(self, {a.name: self._argument(a) for a in self.kernel.arguments if a.kind != "identity"})
        except Exception:
            self._busy = False
            raise

    def _end(self) -> None:
        self._busy, self._done, self._ready = False, True, True
        self._words[CONTROL["ISR"]] = self._words.get(CONTROL["ISR"], 0) | self._words.get(CONTROL["IER"], 0)

    def _argument(self, argument: Argument) -> int | float:
        offset = self._at[argument.name]
        word = self._words.get(offset, 0)
        if argument.pointer:
            return word | self._words.get(offset + 4, 0) << 32
        if argument.kind == "uint32":
            return word
        return struct.unpack("<f" if argument.kind == "float32" else "<i", struct.pack("<I", word))[0]
