"""Buffers in a board's memory, taken from a pool and given back to it.

Allocating costs a round trip and contiguous memory is scarce, so memory that is given back is kept by size class: four
classes a doubling waste at most a fifth. A Buffer knows which side is newer. What the host wrote is flushed once, before
the next launch that uses the buffer, however many launches follow; what a launch wrote is fetched once, when it is read.
Both move the whole buffer: pynq writes a slice to the beginning of its buffer (PYNQ 4.0.0).
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import BoardError, BoardLost, BoardMemoryExhausted
from .link import Link, Memory, free_memory

SMALLEST = 4096  # a page
CLASSES = 4  # sizes a doubling


def size_class(nbytes: int) -> int:
    """The bytes that are allocated for `nbytes`."""
    if nbytes <= SMALLEST:
        return SMALLEST
    step = (1 << (nbytes - 1).bit_length() - 1) // CLASSES
    return -(-nbytes // step) * step


@dataclass
class Moved:
    """Bytes that went to the board and came from it."""

    flushed: int = 0
    fetched: int = 0


class Pool:
    """The memory of one board. Whoever calls `link` does so in `calling`; `lost` is how the connection broke."""

    def __init__(self, link: Link):
        self.link, self.moved = link, Moved()
        self.lost: BoardLost | None = None
        self.reclaim: Callable[[], None] | None = None  # frees buffers that are only kept to be quick
        self._lock = threading.RLock()
        self._used: list[Memory] = []
        self._idle: dict[int, list[Memory]] = {}
        # Appended to by the garbage collector too, which must not wait for a lock; with each, what Buffer.free says.
        self._given: deque[tuple[Memory, bool]] = deque()
        self._unflushed: set[int] = set()  # addresses of idle memory

    @contextmanager
    def calling(self) -> Iterator[None]:
        """One thread at a time, and none on a connection that broke."""
        with self._lock:
            self.connected()
            try:
                yield
            except BoardLost as error:
                self.lost = error
                raise

    def connected(self) -> None:
        if self.lost is not None:
            raise BoardLost(f"{self.lost}; connect anew") from self.lost

    def take(self, nbytes: int) -> Buffer:
        if nbytes < 0:
            raise ValueError(f"nbytes={nbytes}: a buffer has at least 0 bytes")
        size = size_class(nbytes)
        with self.calling():
            self._sort_in()
            memory = self._idle[size].pop() if self._idle.get(size) else self.link.allocate(size)
            if memory is None:
                self.release()
                memory = self.link.allocate(size)
            if memory is None and self.reclaim is not None:
                self.reclaim()
                self.release()
                memory = self.link.allocate(size)
            if memory is None:
                raise BoardMemoryExhausted(self.link.where, size, self.held, free_memory(self.link))
            self._used.append(memory)
            dirty = memory.address in self._unflushed
            self._unflushed.discard(memory.address)
            return Buffer(self, memory, nbytes, dirty)

    def give(self, memory: Memory, dirty: bool) -> None:
        """`dirty`: the host wrote what was not flushed. It is before the next launch: a cache that throws such lines out
        later would write them over what a kernel has written."""
        self._given.append((memory, dirty))

    @property
    def held(self) -> int:
        """Bytes of buffers in use."""
        with self._lock:
            self._sort_in()
            return sum(len(memory.array) for memory in self._used)

    def release(self) -> None:
        """Give memory that no buffer uses back to the board."""
        with self.calling():
            self._sort_in()
            self._unflushed.clear()
            while self._idle:
                _, same = self._idle.popitem()
                while same:
                    same.pop().free()

    def close(self) -> None:
        """Give all memory back to the board, that of buffers in use too."""
        with self.calling():
            self.release()
            while self._used:
                self._used.pop().free()

    def _sort_in(self) -> None:
        while self._given:
            memory, dirty = self._given.popleft()
            self._used.remove(memory)
            if dirty:
                self._unflushed.add(memory.address)
            self._idle.setdefault(len(memory.array), []).append(memory)


class Buffer:
    """`nbytes` of a board's memory, beginning at a page. Not initialised. Freed when it is collected, at the latest.

    Reading waits for the launches that were submitted with it. What a failed launch may have written cannot be read, nor
    be the input of another, until a launch that writes at the same offset succeeds, or the host writes the whole buffer."""

    def __init__(self, pool: Pool, memory: Memory, nbytes: int, dirty: bool):
        self.nbytes = nbytes
        self.address = memory.address
        self.pending: Future[Any] | None = None
        self._pool, self._memory = pool, memory
        self._dirty = dirty  # the host's side is newer
        self._stale = False  # the board's side is newer
        self._broken: dict[int, BoardError] = {}  # by the offset at which a failed launch was to write

    def write(self, array: Any, offset: int = 0) -> None:
        """The bytes of a numpy array, or of a tensor on the CPU, from byte `offset` on; the board sees them at the next
        launch that uses the buffer. Raises ValueError where they do not fit."""
        data = _bytes_of(array)
        if offset < 0 or offset + len(data) > self.nbytes:
            raise ValueError(
                f"{len(data)} bytes at offset {offset} do not fit into a buffer of {self.nbytes}: allocate a larger one"
            )
        self._wait()
        if len(data) < self.nbytes:
            self.usable()
            self._fetch()  # what is not overwritten must not be sent back old
        self._host()[offset : offset + len(data)] = data
        self._dirty, self._stale = True, False
        if len(data) == self.nbytes:
            self._broken.clear()

    def read(self, dtype: Any, count: int, offset: int = 0) -> np.ndarray:
        """A copy of `count` numbers of `dtype` from byte `offset` on. Raises the BoardError of a launch that was to write
        them and failed, ValueError where the buffer is shorter."""
        end = offset + count * np.dtype(dtype).itemsize
        if offset < 0 or count < 0 or end > self.nbytes:
            raise ValueError(
                f"count={count} of {np.dtype(dtype)} at offset {offset}: the buffer has {self.nbytes} bytes"
            )
        self._wait()
        self.usable()
        self._fetch()
        return self._host()[offset:end].copy().view(dtype)

    def free(self) -> None:
        """Give the memory back to the pool, when launches under way are done. Again is nothing."""
        memory, self._memory = self._memory, None
        if memory is not None:
            if self.pending is not None:
                self.pending.exception()
            self._pool.give(memory, self._dirty)

    def usable(self) -> None:
        """Raises the error of the launch that was to write this buffer and failed, BoardLost where there is no board behind
        it any more, ValueError once it is freed."""
        self._host()
        for error in self._broken.values():
            raise type(error)(f"the buffer holds no result, write it anew: {error}") from error

    def flush(self) -> None:
        """Before a launch."""
        with self._pool.calling():
            if self._dirty:
                self._memory.flush()
                self._dirty = False
                self._pool.moved.flushed += len(self._memory.array)

    def written(self, offset: int) -> None:
        """By a launch that is done."""
        self._stale = True
        self._broken.pop(offset, None)

    def fail(self, offset: int, error: BoardError) -> None:
        """By a launch that was to write and is not done."""
        self._broken[offset] = error

    def of(self, pool: Pool) -> bool:
        return self._pool is pool

    def _fetch(self) -> None:
        with self._pool.calling():
            if self._stale:
                self._memory.invalidate()
                self._stale = False
                self._pool.moved.fetched += len(self._memory.array)

    def _host(self) -> np.ndarray:
        self._pool.connected()  # closing gives memory back that buffers still name
        if self._memory is None:
            raise ValueError("the buffer was freed: allocate another")
        return self._memory.array

    def _wait(self) -> None:
        if self.pending is not None:
            self.pending.exception()  # told by usable()
            self.pending = None

    def __enter__(self) -> Buffer:
        return self

    def __exit__(self, *error: object) -> None:
        self.free()

    def __del__(self) -> None:
        if getattr(self, "_memory", None) is not None:
            self.free()


def _bytes_of(array: Any) -> np.ndarray:
    """Without a copy where it is contiguous. A tensor by its address: numpy has no bfloat16."""
    if not hasattr(array, "data_ptr"):
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if array.device.type != "cpu":
        raise ValueError(f"a tensor on {array.device}: move it to the CPU first, as in tensor.cpu()")
    array = array.contiguous()
    nbytes = array.numel() * array.element_size()
    if nbytes == 0:
        return np.empty(0, np.uint8)
    raw = (ctypes.c_uint8 * nbytes).from_address(array.data_ptr())
    raw.owner = array  # the copy of a tensor that was not contiguous lives as long
    return np.frombuffer(raw, np.uint8)
