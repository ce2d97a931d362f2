"""The emulated board without any wire: memory and its cache, kernels on a bus, clocks, files, bitstreams.

What a real board would answer with a hang, with corrupted memory or with old bytes, it refuses (Refused) and says why. A
launch runs in a thread of its own; its cycles are those of the cycle model, or counted where the slot holds RTL.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ..boards import Board
from ..convolution import ENGINES
from ..registers import Kernel, config_hash, kernels
from . import checks, files, handoff
from .clocks import BLOCK_BYTES, Clocks
from .csim import csim
from .ddr import Ddr
from .faults import Dropped, Faults, Refused, parse
from .launches import Meaning
from .slot import Arguments, Core, Slot

Slots = Callable[[Kernel, Board, Ddr], Core]
KEPT = 256  # launches that can be looked up
MACS_PER_SECOND = 3e6  # of C-simulation; 6 to 9 million on a processor with nothing else to do
TOO_FAST = 1.01  # times the clock for which the kernels are built


@dataclass(frozen=True)
class Launch:
    """`modelled_*` by the cycle model, at the clock that is set; `cycles`: counted in RTL, else None. `wall_seconds` of
    simulating it, which says nothing of a board."""

    kernel: str
    arguments: Arguments
    modelled_cycles: int
    modelled_bytes: int
    modelled_seconds: float
    trips: dict[str, tuple[int, ...]] | None
    cycles: int | None
    wall_seconds: float
    faults: tuple[str, ...]


class Machine:
    """`slots` makes what computes in a kernel's slot; `told` is called with each Launch when it has ended."""

    def __init__(
        self,
        board: Board,
        slots: Slots = csim,
        faults: Faults | None = None,
        cma_bytes: int | None = None,
        told: Callable[[Launch], None] = lambda launch: None,
    ):
        if board.control_base is None:
            raise ValueError(f"board={board.name!r} is driven through XRT: no board of PYNQ's to emulate")
        self.board, self.faults = board, faults or Faults()
        self.clocks, self.ddr, self.files = Clocks(board), Ddr(board, cma_bytes), files.Files(board)
        self._slots, self._told = slots, told
        self._bus: dict[int, Slot] = {}
        self._cores: dict[str, Core] = {}
        self._wrong_hash = 0
        self._launches: deque[Launch] = deque(maxlen=KEPT)
        self._lock = threading.RLock()
        self._describe()

    # Memory: a buffer is known by its physical address.

    def allocate(self, nbytes: int) -> int:
        """Raises OutOfMemory."""
        with self._lock:
            if self.faults.take("out-of-memory"):
                raise self.ddr.exhausted(nbytes)
            return self.ddr.allocate(nbytes)

    def free(self, address: int) -> None:
        with self._lock:
            self.ddr.free(address)

    def write(self, address: int, data: bytes | memoryview, offset: int = 0) -> None:
        with self._lock:
            if self.faults.take("drop"):
                self.ddr.write(address, data[: len(data) // 2], offset)
                raise Dropped("written")
            self.ddr.write(address, data, offset)

    def read(self, address: int, nbytes: int | None = None, offset: int = 0) -> bytes:
        with self._lock:
            data = self.ddr.read(address, nbytes, offset)
            if self.faults.take("drop"):
                raise Dropped("read", data[: len(data) // 2])
            return data

    def flush(self, address: int) -> None:
        with self._lock:
            self.ddr.flush(address)

    def invalidate(self, address: int) -> None:
        with self._lock:
            self.ddr.invalidate(address)

    # The bus: whole words of 32 bits.

    def mmio_read(self, address: int, nbytes: int = 4) -> int:
        with self._lock:
            device, offset = self._device(address)
            words = [device.read(offset + i) for i in range(0, max(nbytes, 4), 4)]
        return sum(word << 32 * i for i, word in enumerate(words)) & (1 << 8 * nbytes) - 1

    def mmio_write(self, address: int, data: bytes) -> None:
        if len(data) % 4:
            raise Refused(f"a write of {len(data)} bytes at {address:#x}: registers take whole words")
        with self._lock:
            for i in range(0, len(data), 4):
                device, offset = self._device(address + i)
                device.write(offset, int.from_bytes(data[i : i + 4], "little"))

    def _device(self, address: int):
        for size, devices in ((BLOCK_BYTES, self.clocks.blocks), (self.board.control_stride, self._bus)):
            base = address // size * size
            if base in devices and address % 4 == 0:
                return devices[base], address - base
        held = ", ".join(f"{slot.kernel.top} at {base:#x}" for base, slot in self._bus.items()) or "no kernels"
        raise Refused(f"bus error: nothing answers at {address:#x}; the overlay holds {held}")

    # The programmable logic.

    def load(self, bitstream: bytes) -> None:
        """A .bit, or the data of one as a client sends it. All kernels are idle afterwards; memory keeps its contents."""
        if self.faults.take("bad-crc"):
            bitstream = bitstream[:-1] + bytes([bitstream[-1] ^ 1])
        contents = handoff.read(bitstream)
        for wrong in self._mismatches(contents):
            raise Refused(wrong)
        tops = {top: kernels()[top] for top in contents.kernels}
        self._cores |= {top: self._slots(k, self.board, self.ddr) for top, k in tops.items() if top not in self._cores}
        with self._lock:
            self._wrong_hash = 1 if self.faults.take("wrong-overlay") else 0
            self._bus = {contents.kernels[top]["base"]: Slot(kernel, self._launch) for top, kernel in tops.items()}

    def _mismatches(self, contents: handoff.Contents):
        if contents.board != self.board.name:
            yield f"this bitstream is for {contents.board}, the board is a {self.board.name}"
        for top, built in contents.kernels.items():
            kernel = kernels().get(top)
            if kernel is None:
                yield f"this bitstream holds the kernel {top}, which is none of {', '.join(kernels())}"
            elif (built["version"], built["config_hash"]) != (kernel.version, config_hash(kernel, self.board)):
                yield f"this bitstream holds another configuration of {top} than the sources here: write it again"

    def _launch(self, slot: Slot, arguments: Arguments) -> None:
        """Raises Refused for what cannot be launched."""
        limit = self.board.clock_mhz * TOO_FAST
        if not 0 < self.clocks.pl_mhz <= limit:
            raise Refused(
                f"{slot.kernel.top}: PL clock 0 is set to {self.clocks.pl_mhz:g} MHz, the kernels are built for "
                f"{self.board.clock_mhz}"
            )
        found = checks.checked(slot.kernel, self.board, arguments, self.ddr)
        for ranges in found.reach.writes.values():
            for range_ in ranges:
                buffer = self.ddr.holding(*range_)
                if buffer is not None:
                    buffer.stale = buffer.defined = True
        if not self.faults.take("hang"):
            threading.Thread(target=self._run, args=(slot, arguments, found), daemon=True).start()

    def _run(self, slot: Slot, arguments: Arguments, found: Meaning) -> None:
        begun = time.monotonic()
        slow = self.faults.take("slow")
        if slow:
            time.sleep(slow.seconds)
        wrong, outcome = [], None
        try:
            outcome = self._cores[slot.kernel.top].start(arguments)
        except (RuntimeError, OSError) as error:
            wrong.append(f"{slot.kernel.top}: {error}")
        with self._lock:
            wrong += checks.after(slot.kernel, self.ddr)
            if outcome and outcome.trips is not None and outcome.trips != found.estimate.trips:
                wrong.append(f"{slot.kernel.top}: counted trips {outcome.trips}, modelled {found.estimate.trips}")
            cycles, moved = found.estimate.cycles, found.estimate.bytes
            slower = self.board.clock_mhz / self.clocks.pl_mhz
            launch = Launch(
                slot.kernel.top,
                arguments,
                cycles,
                moved,
                found.estimate.seconds * slower,
                outcome and outcome.trips,
                outcome and outcome.cycles,
                time.monotonic() - begun,
                tuple(wrong),
            )
            self._launches.append(launch)
            if wrong or outcome is None:
                slot.fail("; ".join(wrong))
            else:
                slot.finish(outcome.identity ^ self._wrong_hash << 32)
        self._told(launch)

    # Files.

    def _describe(self) -> None:
        readers, writers = self.files.readers, self.files.writers
        readers[files.EMULATION] = self._emulation
        readers[files.MEMORY] = self._meminfo
        readers[files.FAULTS] = lambda: " ".join(self.faults.waiting()).encode()
        writers[files.FAULTS] = self._inject
        writers[files.MANAGER + "firmware"] = self._program
        readers[files.REPORT] = self._report
        readers[files.LAUNCHES] = lambda: json.dumps([asdict(launch) for launch in self._launches]).encode()

    def _emulation(self) -> bytes:
        return json.dumps({"board": self.board.name, "seconds_per_cycle": seconds_per_cycle(self.board)}).encode()

    def _report(self) -> bytes:
        """Of the last launch; `cycles` are counted where they are."""
        if not self._launches:
            return json.dumps({"kernel": "", "cycles": 0, "faults": []}).encode()
        last = self._launches[-1]
        cycles = last.modelled_cycles if last.cycles is None else last.cycles
        return json.dumps({"kernel": last.kernel, "cycles": cycles, "faults": last.faults}).encode()

    def _meminfo(self) -> bytes:
        lines = {"CmaTotal": self.ddr.nbytes, "CmaFree": self.ddr.free_bytes}
        return "".join(f"{name + ':':<16}{nbytes // 1024:8} kB\n" for name, nbytes in lines.items()).encode()

    def _inject(self, data: bytes) -> None:
        for text in data.decode().split():
            self.faults.add(parse(text))

    def _program(self, data: bytes) -> None:
        """The name of a file in FIRMWARE, as Linux's FPGA manager takes it."""
        name = data.decode().strip()
        bitstream = self.files.read(files.FIRMWARE + name)
        try:
            if bitstream is None:
                raise Refused(f"there is no {files.FIRMWARE}{name}")
            self.load(bitstream)
        except Refused:
            self.files.write(files.MANAGER + "state", b"write error\n")
            raise
        self.files.write(files.MANAGER + "state", b"operating\n")


def seconds_per_cycle(board: Board) -> float:
    """What C-simulation needs for a modelled cycle at worst: one in which all multipliers work."""
    macs = max(board.sizes[engine]["inputs"] * board.sizes[engine]["outputs"] for engine in ENGINES)
    return macs / MACS_PER_SECOND
