"""The kernels' registers, as Vitis HLS lays them out (AMD UG1399, "S_AXILITE Control Register Map"): control from 0x00,
arguments in order from 0x10. A pointer takes two words and a reserved one, a scalar one word and a reserved one.

The last argument of every kernel is its identity, an output of two words that only the kernel writes: VERSION, that of
its registers, and CONFIG_HASH, of the board's sizes that it was built with. It is valid once the kernel has run; a start
with nothing to do is enough.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache

from .boards import Board, hls_folder

CONTROL = {"CTRL": 0x00, "GIER": 0x04, "IER": 0x08, "ISR": 0x0C}
CONTROL_BITS = {"AP_START": 0, "AP_DONE": 1, "AP_IDLE": 2, "AP_READY": 3, "AUTO_RESTART": 7}
FIRST_ARGUMENT = 0x10

_WORDS = {"read": 3, "write": 3, "uint32": 2, "int32": 2, "float32": 2, "identity": 3}


@dataclass(frozen=True)
class Argument:
    """An argument of a kernel's top function. kind: "read" or "write", a pointer into memory through the AXI port
    `bundle`; "uint32", "int32", "float32", by value; "identity"."""

    name: str
    kind: str
    bundle: str | None = None

    @property
    def pointer(self) -> bool:
        return self.kind in ("read", "write")


@dataclass(frozen=True)
class Kernel:
    """What hls/<op>/kernel*.json says. `version` is raised when a register changes its place or meaning. `stages` are
    the pipelined loops, in the order in which C-simulation counts their trips, those of each of the `engines`."""

    op: str
    top: str
    version: int
    engines: int
    sources: tuple[str, ...]
    testbench: str
    stages: tuple[str, ...]
    arguments: tuple[Argument, ...]

    @property
    def bundles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(a.bundle for a in self.arguments if a.bundle))


@cache
def kernels() -> dict[str, Kernel]:
    """All kernels, by the name of their top function."""
    found = {}
    for path in sorted(hls_folder().glob("*/kernel*.json")):
        described = json.loads(path.read_text())
        described["arguments"] = tuple(Argument(**a) for a in described["arguments"])
        described["sources"] = tuple(described["sources"])
        described["stages"] = tuple(described["stages"])
        found[described["top"]] = Kernel(**described)
    return found


def config_hash(kernel: Kernel, board: Board) -> int:
    """32 bits over all that the host must agree with the kernel about: arguments, width of a beat, sizes of buffers."""
    agreed = {
        "kernel": asdict(kernel),
        "bits": board.ports.bits,
        "ports": board.ports.number,
        "sizes": board.sizes.get(kernel.top, {}),
    }
    return int.from_bytes(hashlib.sha256(json.dumps(agreed, sort_keys=True).encode()).digest()[:4], "little")


def offsets(kernel: Kernel) -> dict[str, int]:
    """The offset of every register, in bytes from the kernel's address."""
    at = dict(CONTROL)
    offset = FIRST_ARGUMENT
    for argument in kernel.arguments:
        if argument.kind == "identity":
            at |= {"VERSION": offset, "CONFIG_HASH": offset + 4}
        else:
            at[argument.name] = offset
        offset += 4 * _WORDS[argument.kind]
    return at
