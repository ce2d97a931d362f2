"""A board as a wire sees it: bytes of memory, words of registers, a bitstream, and files of its operating system.

Link is all that driver.py asks of a board. pynq_link.py gives it by the pynq client; anything else with these methods
serves as well. A Link is called by one thread at a time. Each method ends in bounded time, with its result or with a
BoardError: BoardLost where the board does not answer, BoardFault with the board's words where it refuses.

An emulated board says so by a file, EMULATION, and of each launch by another, REPORT; a real one has neither.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from . import boards
from .boards import Board
from .errors import BoardFault
from .overlay import Overlay

BOARD_NAME = "/proc/device-tree/chosen/pynq_board"  # of PYNQ's images: "Pynq-Z2", "ZCU104", "KV260"
MEMORY = "/proc/meminfo"
EMULATION = "/etc/accelops/emulation.json"  # {"board": NAME, "seconds_per_cycle": HOST SECONDS FOR A MODELLED CYCLE}
REPORT = "/run/accelops/report.json"  # of the last launch: {"kernel": TOP, "cycles": MODELLED, "faults": [TEXT, ...]}


class Memory(Protocol):
    """Contiguous memory of the board at the physical `address`, and `array`, its bytes (uint8) on this side."""

    address: int
    array: np.ndarray

    def flush(self) -> None:
        """Make the board's kernels see `array`: all of it."""

    def invalidate(self) -> None:
        """Make `array` what is in the board's memory: all of it, or an error and no change."""

    def free(self) -> None: ...


class Link(Protocol):
    """`where` names the board in messages, such as 127.0.0.1:7967. `loads_first`: it has memory to give only once an
    overlay is loaded."""

    where: str
    board: Board
    loads_first: bool

    def load(self, overlay: Overlay) -> None:
        """Load a bitstream; every kernel is idle afterwards, and memory keeps its contents."""

    def allocate(self, nbytes: int) -> Memory | None:
        """At least a page-aligned `nbytes`; None where the board has no more."""

    def read(self, address: int) -> int:
        """A register's 32 bits."""

    def write(self, address: int, data: bytes) -> None:
        """Whole words into consecutive registers, in one transfer."""

    def read_file(self, path: str) -> bytes | None:
        """Of the board's operating system; None where there is no such file."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Emulation:
    """An emulated board `board`; `seconds_per_cycle`: what it needs to simulate a modelled cycle, at worst."""

    board: str
    seconds_per_cycle: float


@dataclass(frozen=True)
class Report:
    """What an emulated board saw in its last launch."""

    kernel: str
    cycles: int
    faults: tuple[str, ...]


def emulation(link: Link) -> Emulation | None:
    """None for a real board."""
    text = link.read_file(EMULATION)
    return None if text is None else Emulation(**_parsed(link, EMULATION, text))


def report(link: Link) -> Report:
    """Raises BoardFault where an emulated board has none."""
    text = link.read_file(REPORT)
    if text is None:
        raise BoardFault(f"{link.where} is emulated and has no {REPORT} of its last launch")
    said = _parsed(link, REPORT, text)
    return Report(said["kernel"], said["cycles"], tuple(said["faults"]))


def _parsed(link: Link, path: str, text: bytes) -> dict:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BoardFault(f"{link.where}: {path} is no JSON ({error})") from None


def free_memory(link: Link) -> int | None:
    """Bytes that Linux has left for contiguous buffers (CMA); None where it does not say."""
    found = re.search(rb"^CmaFree:\s*(\d+) kB", link.read_file(MEMORY) or b"", re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def board_named(where: str, name: bytes | None) -> Board:
    """The board whose PYNQ image says `name`. Raises BoardFault where it says none, or one that is not described."""
    said = (name or b"").rstrip(b"\0\n").decode(errors="replace")
    if said.lower() not in boards.names():
        raise BoardFault(
            f"{where} says {BOARD_NAME}={said!r}, which is none of {', '.join(boards.names())}: name the board, "
            f"as in discovery.connect(host, board='pynq-z2')"
        )
    return boards.board(said.lower())
