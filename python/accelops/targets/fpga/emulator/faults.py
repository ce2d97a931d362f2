"""What goes wrong: what the board refuses because a real one would hang, corrupt memory or answer nonsense, and faults
that are asked for, to see what a program makes of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

KINDS = {
    "hang": "the next launch never ends",
    "slow": "the next launch takes that many seconds more: slow=2.5",
    "bad-crc": "the next bitstream arrives corrupted",
    "out-of-memory": "the next allocation finds no contiguous memory",
    "drop": "the connection is lost half-way through the next transfer",
    "wrong-overlay": "the next overlay loaded has kernels of another configuration",
}


class Refused(RuntimeError):
    """The board's answer to a mistake; on a wire its words arrive as an error."""


class OutOfMemory(Refused):
    """No contiguous memory is left: `asked` bytes, `held` by buffers, `free` in all, not necessarily in one piece."""

    def __init__(self, asked: int, held: int, free: int):
        super().__init__(f"out of contiguous memory (CMA): {asked} bytes asked, {held} held by buffers, {free} free")
        self.asked, self.held, self.free = asked, held, free


class Dropped(ConnectionError):
    """The connection went away in the middle of a transfer; of a read, `before` had arrived."""

    def __init__(self, what: str, before: bytes = b""):
        super().__init__(f"the connection was lost while a buffer was {what}")
        self.before = before


@dataclass(frozen=True)
class Fault:
    """`kind` is one of KINDS; it happens `times` times; `seconds` is for "slow"."""

    kind: str
    times: int = 1
    seconds: float = 0.0


def parse(text: str) -> Fault:
    """ "hang", "slow=2.5", "hang*3". Raises ValueError."""
    name, _, times = text.strip().partition("*")
    kind, _, seconds = name.partition("=")
    try:
        fault = Fault(kind, int(times or 1), float(seconds or 0))
    except ValueError:
        raise ValueError(f"fault={text!r}: expected KIND, KIND=SECONDS or KIND*TIMES") from None
    if kind not in KINDS:
        raise ValueError(f"fault={text!r} is unknown; choose one of {', '.join(KINDS)}")
    if (fault.seconds > 0) != (kind == "slow") or fault.times < 1:
        raise ValueError(f"fault={text!r}: only slow takes seconds (and needs them), and times are at least 1")
    return fault


class Faults:
    """Those still to happen."""

    def __init__(self, *faults: Fault):
        self._waiting = list(faults)
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._waiting.append(fault)

    def take(self, kind: str) -> Fault | None:
        """The fault of this kind that happens now, if one is to."""
        with self._lock:
            for i, fault in enumerate(self._waiting):
                if fault.kind == kind:
                    left = [Fault(kind, fault.times - 1, fault.seconds)] if fault.times > 1 else []
                    self._waiting[i : i + 1] = left
                    return fault
        return None

    def waiting(self) -> list[str]:
        with self._lock:
            return [f"{f.kind}{f'={f.seconds:g}' if f.seconds else ''}*{f.times}" for f in self._waiting]
