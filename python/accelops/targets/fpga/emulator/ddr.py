"""The board's contiguous memory (CMA) with the cache in front of it: two copies of every buffer, one that the processor
sees and one that the kernels see, which agree only after a flush or an invalidate, as behind ports that are not coherent.

Buffers begin at pages; between them lie guard bytes that nobody may write. Fresh memory is NaN in every float format.
The processor's writes since the last flush are kept as one range: only they are written back, as only dirty lines are.
"""

from __future__ import annotations

import ctypes
import mmap
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from ..boards import Board
from .faults import OutOfMemory, Refused

PAGE = 4096
GUARD = 0xC5
FRESH = 0xFF

# What Linux sets aside; all buffers together get no more, whatever DDR the board has. 128 MiB is what PYNQ's documents say
# of Zynq-7000; the other is assumed.
CMA_BYTES = {"zynq7000": 128 << 20, "zynquplus": 512 << 20}


@dataclass
class Buffer:
    """`dirty`: the range that the processor has written and not flushed. `stale`: a kernel has written since the last
    invalidate. `defined`: something has reached memory since it was allocated."""

    address: int
    nbytes: int
    dirty: tuple[int, int] | None = None
    stale: bool = False
    defined: bool = False

    @property
    def end(self) -> int:
        return self.address + self.nbytes


class Ddr:
    """Addresses are physical: where the kernels see memory."""

    def __init__(self, board: Board, nbytes: int | None = None):
        self.nbytes = CMA_BYTES[board.family] if nbytes is None else nbytes
        self.base = board.ddr.bytes - self.nbytes
        self._arena = mmap.mmap(-1, self.nbytes)
        self._memory = np.frombuffer(self._arena, np.uint8)
        self._cache = np.frombuffer(mmap.mmap(-1, self.nbytes), np.uint8)
        self._host = ctypes.addressof(ctypes.c_char.from_buffer(self._arena))
        self._buffers: dict[int, Buffer] = {}  # by address, in order of address
        self._addresses: list[int] = []
        self._memory[:PAGE] = GUARD

    @property
    def held(self) -> int:
        return sum(buffer.nbytes for buffer in self._buffers.values())

    @property
    def free_bytes(self) -> int:
        """Not necessarily in one piece."""
        return self.nbytes - PAGE - sum(self._after(buffer) - buffer.address for buffer in self._buffers.values())

    def exhausted(self, asked: int) -> OutOfMemory:
        return OutOfMemory(asked, self.held, self.free_bytes)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(self._buffers.values())

    def allocate(self, nbytes: int) -> int:
        """The address of a new buffer, in the first gap that takes it and a guard page. Raises OutOfMemory."""
        pages = -(-max(nbytes, 1) // PAGE) + 1
        at = self.base + PAGE
        for buffer in self._buffers.values():
            if buffer.address - at >= pages * PAGE:
                break
            at = self._after(buffer)
        if at + pages * PAGE > self.base + self.nbytes:
            raise self.exhausted(nbytes)
        self._buffers = dict(sorted({**self._buffers, at: Buffer(at, nbytes)}.items()))
        self._addresses = list(self._buffers)
        first = at - self.base
        self._memory[first : first + nbytes] = self._cache[first : first + nbytes] = FRESH
        self._memory[first + nbytes : first + pages * PAGE] = GUARD
        return at

    def free(self, address: int) -> None:
        del self._buffers[self.buffer(address).address]
        self._addresses = list(self._buffers)

    def buffer(self, address: int) -> Buffer:
        """The buffer that begins at `address`. Raises Refused where there is none (any more)."""
        found = self._buffers.get(address)
        if found is None:
            raise Refused(f"no buffer begins at {address:#x}: it was freed, or never allocated")
        return found

    def holding(self, start: int, end: int) -> Buffer | None:
        """The buffer that holds all of the bytes from `start` up to `end`."""
        at = bisect_right(self._addresses, start) - 1
        found = self._buffers[self._addresses[at]] if at >= 0 else None
        return found if found and end <= found.end else None

    def write(self, address: int, data: bytes | memoryview, offset: int = 0) -> None:
        """By the processor: into the cache."""
        buffer, values = self.buffer(address), np.frombuffer(data, np.uint8)
        part = self._part(buffer, offset, len(values))
        self._cache[part] = values
        low, high = buffer.dirty or (offset, offset)
        buffer.dirty = min(low, offset), max(high, offset + len(values))

    def read(self, address: int, nbytes: int | None = None, offset: int = 0) -> bytes:
        """By the processor: what the cache holds, which is old where `stale`. Up to the end without `nbytes`."""
        buffer = self.buffer(address)
        return self._cache[self._part(buffer, offset, buffer.nbytes - offset if nbytes is None else nbytes)].tobytes()

    def flush(self, address: int) -> None:
        buffer = self.buffer(address)
        if buffer.dirty:
            low, high = buffer.dirty
            part = self._part(buffer, low, high - low)
            self._memory[part] = self._cache[part]
            buffer.dirty, buffer.defined = None, True

    def invalidate(self, address: int) -> None:
        buffer = self.buffer(address)
        part = self._part(buffer, 0, buffer.nbytes)
        self._cache[part] = self._memory[part]
        buffer.dirty, buffer.stale = None, False

    def host(self, address: int) -> int:
        """Where the byte that kernels see at `address` lies in this process; 0 where it is outside of the memory."""
        inside = self.base <= address < self.base + self.nbytes
        return self._host + address - self.base if inside else 0

    def words(self, start: int, count: int) -> np.ndarray:
        """As a kernel reads them: 32 bits each."""
        first = start - self.base
        return self._memory[first : first + 4 * count].view(np.uint32)

    def trespassed(self) -> list[Buffer]:
        """Buffers behind whose end something was written; their guards are made whole again."""
        hurt = []
        for buffer in self._buffers.values():
            guard = self._memory[buffer.end - self.base : self._after(buffer) - self.base]
            if (guard != GUARD).any():
                guard[:] = GUARD
                hurt.append(buffer)
        return hurt

    def _part(self, buffer: Buffer, offset: int, nbytes: int) -> slice:
        if offset < 0 or nbytes < 0 or offset + nbytes > buffer.nbytes:
            raise Refused(
                f"bytes {offset} to {offset + nbytes} of the buffer at {buffer.address:#x}: it has {buffer.nbytes}"
            )
        first = buffer.address - self.base + offset
        return slice(first, first + nbytes)

    def _after(self, buffer: Buffer) -> int:
        return buffer.address + (-(-max(buffer.nbytes, 1) // PAGE) + 1) * PAGE
