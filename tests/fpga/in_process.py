"""An emulated board in this process as a Link: what the driver sees through the pynq client, without client and wire."""

from __future__ import annotations

import numpy as np

from accelops.targets.fpga.emulator.faults import Dropped, OutOfMemory, Refused
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.errors import BoardFault, BoardLost
from accelops.targets.fpga.overlay import Overlay


class InProcess:
    """`machine` as a Link; its memory copies whole buffers, as a client's does."""

    loads_first = False

    def __init__(self, machine: Machine, where: str = "in process"):
        self.machine, self.where, self.board = machine, where, machine.board

    def load(self, overlay: Overlay) -> None:
        self.told(self.machine.load, overlay.bit.read_bytes())

    def allocate(self, nbytes: int) -> InProcessMemory | None:
        try:
            return InProcessMemory(self, self.machine.allocate(nbytes), nbytes)
        except OutOfMemory:
            return None

    def read(self, address: int) -> int:
        return self.told(self.machine.mmio_read, address)

    def write(self, address: int, data: bytes) -> None:
        self.told(self.machine.mmio_write, address, data)

    def read_file(self, path: str) -> bytes | None:
        return self.machine.files.read(path)

    def close(self) -> None:
        pass

    def told(self, method, *arguments):
        """Errors as those of a Link."""
        try:
            return method(*arguments)
        except Refused as refused:
            raise BoardFault(f"{self.where}: {refused}") from None
        except Dropped as dropped:
            raise BoardLost(f"{self.where}: {dropped}") from None


class InProcessMemory:
    def __init__(self, link: InProcess, address: int, nbytes: int):
        self.address, self.array = address, np.zeros(nbytes, np.uint8)
        self._link = link

    def flush(self) -> None:
        self._link.told(self._link.machine.write, self.address, self.array.data)
        self._link.told(self._link.machine.flush, self.address)

    def invalidate(self) -> None:
        self._link.told(self._link.machine.invalidate, self.address)
        self.array[:] = np.frombuffer(self._link.told(self._link.machine.read, self.address), np.uint8)

    def free(self) -> None:
        self._link.told(self._link.machine.free, self.address)
