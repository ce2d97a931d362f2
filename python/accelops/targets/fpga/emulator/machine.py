"""The emulated board without any wire: memory and its cache, a bus with the kernels and the clocks on it, and files.

What a real board would answer with a hang, with corrupted memory or with old bytes, it refuses (Refused) and says why.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict

from ..boards import Board
from ..convolution import ENGINES
from . import files
from .clocks import BLOCK_BYTES, Clocks, Registers
from .csim import csim
from .ddr import Ddr
from .fabric import KEPT, Fabric, Launch, Slots
from .faults import Dropped, Faults, Refused, parse
from .slot import Slot

MACS_PER_SECOND = 3e6  # of C-simulation; 6 to 9 million on a processor with nothing else to do


class Machine:
    """`slots` makes what computes in a kernel's slot; `told` is called with each Launch when it has ended, `warned` with what
    a board does as well, and nobody means: a buffer is read before it was invalidated, or freed while a kernel uses it."""

    def __init__(
        self,
        board: Board,
        slots: Slots = csim,
        faults: Faults | None = None,
        cma_bytes: int | None = None,
        told: Callable[[Launch], None] = lambda launch: None,
        warned: Callable[[str], None] = lambda warning: None,
    ):
        if board.control_base is None:
            raise ValueError(f"board={board.name!r} is driven through XRT: no board of PYNQ's to emulate")
        self.board, self.faults = board, faults or Faults()
        self.clocks, self.ddr, self.files = Clocks(board), Ddr(board, cma_bytes), files.Files(board)
        self._lock = threading.RLock()
        self.fabric = Fabric(board, self.ddr, self.clocks, self.faults, slots, told, self._lock)
        self._warned = warned
        self._warnings: deque[str] = deque(maxlen=KEPT)
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
            top = self.fabric.user(address)
            if top is not None:
                self._warn(f"the buffer at {address:#x} is freed, and {top} still computes with it: loading stops it")
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
            if self.ddr.buffer(address).stale:
                warning = (
                    f"the buffer at {address:#x} is read and was not invalidated since a kernel wrote it: old bytes"
                )
                self._warnings.append(warning)
                self._warned(warning)
            if self.faults.take("drop"):
                raise Dropped("read", data[: len(data) // 2])
            return data

    def flush(self, address: int) -> None:
        with self._lock:
            if self.ddr.buffer(address).dirty:
                self._at_rest(address)
            self.ddr.flush(address)

    def invalidate(self, address: int) -> None:
        with self._lock:
            self._at_rest(address)
            self.ddr.invalidate(address)

    def _at_rest(self, address: int) -> None:
        top = self.fabric.user(address)
        if top is not None:
            raise Refused(f"the buffer at {address:#x} is in use by {top}, which has not ended: wait for AP_DONE")

    def _warn(self, warning: str) -> None:
        self._warnings.append(warning)
        self._warned(warning)

    # The bus: words of 32 bits.

    def mmio_read(self, address: int, nbytes: int = 4) -> int:
        with self._lock:
            words = []
            for at in range(address, address + max(nbytes, 4), 4):
                device, offset = self._device(at)
                words.append(device.read(offset))
        return sum(word << 32 * i for i, word in enumerate(words)) & (1 << 8 * nbytes) - 1

    def mmio_write(self, address: int, data: bytes) -> None:
        if len(data) % 4:
            raise Refused(f"a write of {len(data)} bytes at {address:#x}: registers take whole words")
        with self._lock:
            for i in range(0, len(data), 4):
                device, offset = self._device(address + i)
                device.write(offset, int.from_bytes(data[i : i + 4], "little"))

    def _device(self, address: int) -> tuple[Slot | Registers, int]:
        for size, devices in ((BLOCK_BYTES, self.clocks.blocks), (self.board.control_stride, self.fabric.slots)):
            base = address // size * size
            if base in devices and address % 4 == 0:
                return devices[base], address - base
        held = ", ".join(f"{slot.kernel.top} at {base:#x}" for base, slot in self.fabric.slots.items())
        raise Refused(f"bus error: nothing answers at {address:#x}; the overlay holds {held or 'no kernels'}")

    # Files, and what is behind them.

    def load(self, bitstream: bytes) -> None:
        """A .bit, or its data as a client sends it."""
        state = files.MANAGER + "state"
        try:
            self.fabric.load(bitstream)
        except Refused:
            self.files.write(state, b"write error\n")
            raise
        self.files.write(state, b"operating\n")

    def _describe(self) -> None:
        readers, writers = self.files.readers, self.files.writers
        readers[files.EMULATION] = self._emulation
        readers[files.MEMORY] = self._meminfo
        readers[files.REPORT] = self._report
        readers[files.LAUNCHES] = self._launches
        readers[files.WARNINGS] = lambda: json.dumps(list(self._warnings)).encode()
        readers[files.FAULTS] = lambda: " ".join(self.faults.waiting()).encode()
        writers[files.FAULTS] = self._inject
        writers[files.MANAGER + "firmware"] = self._program

    def _emulation(self) -> bytes:
        """`seconds_per_cycle`: what C-simulation needs for a modelled cycle in which all multipliers work."""
        sizes = (self.board.sizes[engine] for engine in ENGINES)
        macs = max(array["inputs"] * array["outputs"] for array in sizes)
        return json.dumps({"board": self.board.name, "seconds_per_cycle": macs / MACS_PER_SECOND}).encode()

    def _meminfo(self) -> bytes:
        lines = {"CmaTotal": self.ddr.nbytes, "CmaFree": self.ddr.free_bytes}
        return "".join(f"{name + ':':<16}{nbytes // 1024:8} kB\n" for name, nbytes in lines.items()).encode()

    def _launches(self) -> bytes:
        with self._lock:
            return json.dumps([asdict(launch) for launch in self.fabric.launches]).encode()

    def _report(self) -> bytes:
        """Of the last launch; `cycles` are counted where they are."""
        with self._lock:
            last = self.fabric.launches[-1] if self.fabric.launches else None
        if last is None:
            return json.dumps({"kernel": "", "cycles": 0, "faults": []}).encode()
        cycles = last.modelled_cycles if last.cycles is None else last.cycles
        return json.dumps({"kernel": last.kernel, "cycles": cycles, "faults": last.faults}).encode()

    def _inject(self, data: bytes) -> None:
        for text in data.decode().split():
            self.faults.add(parse(text))

    def _program(self, data: bytes) -> None:
        """The name of a file in FIRMWARE, as Linux's FPGA manager takes it."""
        name = data.decode().strip()
        bitstream = self.files.read(files.FIRMWARE + name)
        if bitstream is None:
            raise Refused(f"there is no {files.FIRMWARE}{name}")
        self.load(bitstream)
