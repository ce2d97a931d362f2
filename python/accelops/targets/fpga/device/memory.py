"""Copies of tensors in the memory of one board (Memory), and all that are of one block of memory (Home).

A copy is of a view of the block, in some layout: a kernel's arrangement of a convolution's images, or simply the numbers.
What a launch writes is a copy too, and stays where it is: the next launch that asks for the same layout is given it, and
nothing moves; only when the host looks at the tensor is it fetched. What the host writes makes the copies void. They take a
bounded part of the board's memory; what was used longest ago goes first.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..driver import Driver
from ..errors import BoardError

PART_OF_MEMORY = 2  # of the board's, for copies: the other half is for what launches need besides
MOST_VIEWS = 1024  # of a block that are kept: of a data set, every batch is one

Buffer = Any
_ops = torch.ops.accelops_fpga


@dataclass
class _Copy:
    """Of the bytes [begin, end) of a block. `unpack` writes it into the host's side, as long as the board alone has it."""

    buffer: Buffer
    begin: int
    end: int
    unpack: Callable[[Buffer], None] | None = None


class Memory:
    """One board's copies. Whoever works on them has `lock`: the board runs one launch at a time anyway."""

    def __init__(self, index: int, driver: Driver) -> None:
        self.index, self.driver, self.lock = index, driver, threading.RLock()
        self.peak = 0  # bytes of copies
        self.gone: deque[Home] = deque()  # of tensors that were freed; in any thread, which must not wait for a lock
        self.in_use: set[int] = set()  # of the launch that is being made, by the identity of their buffers
        self._most = driver.board.ddr.bytes // PART_OF_MEMORY
        self._held = 0
        self._least_recent_first: OrderedDict[tuple[int, Hashable], Home] = OrderedDict()
        self._process = os.getpid()
        driver.reclaim_by(self.reclaim)

    def check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                "fpga: a forked process cannot use the board of its parent: start it by 'spawn', and use the CPU there"
            )

    @property
    def held(self) -> int:
        """Bytes of copies."""
        with self.lock:
            while self.gone:
                self.gone.popleft().drop_all()
            return self._held

    def allocate(self, nbytes: int) -> Buffer:
        while self.held + nbytes > self._most and self._evict_one():
            pass
        buffer = self.driver.allocate(nbytes)
        self._held += buffer.nbytes
        self.peak = max(self.peak, self._held)
        return buffer

    def release(self) -> None:
        """Fetch what the board alone has, and free all copies but those of a launch being made."""
        while self._evict_one():
            pass

    def reclaim(self) -> None:
        """`release` for who needs the board's memory, unless someone works on the copies: to wait for them could be for
        ever, should they wait for the same."""
        if self.lock.acquire(blocking=False):
            try:
                self.release()
            finally:
                self.lock.release()

    def used(self, home: Home, key: Hashable, copy: _Copy) -> Buffer:
        self._least_recent_first[home.block, key] = home
        self._least_recent_first.move_to_end((home.block, key))
        self.in_use.add(id(copy.buffer))
        return copy.buffer

    def forget(self, home: Home, key: Hashable, copy: _Copy) -> None:
        self._least_recent_first.pop((home.block, key), None)
        self._held -= copy.buffer.nbytes

    def _evict_one(self) -> bool:
        for (_, key), home in self._least_recent_first.items():
            copy = home.copies[key]
            if id(copy.buffer) in self.in_use:
                continue
            try:
                home.fetch(copy)
            except BoardError:  # stays, so that who reads the tensor is told
                continue
            home.drop(key)
            return True
        return False


class Home:
    """A block's copies on its board. Methods are called under the lock of `memory`, with views of `side`."""

    def __init__(self, memory: Memory, block: int) -> None:
        self.memory, self.block = memory, block
        with torch.inference_mode(False):  # what is made within it could not be written outside
            self.side: Tensor = _ops.host_side(block)
        self.views: dict[tuple[Any, ...], Tensor] = {}
        self.copies: dict[Hashable, _Copy] = {}

    def view_of(self, tensor: Tensor) -> Tensor:
        """The host's side of `tensor`; the same object each time, so that others may keep what belongs to it."""
        key = (tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride())
        if key not in self.views:
            if len(self.views) >= MOST_VIEWS:
                self.views.clear()
            with torch.inference_mode(False):
                self.views[key] = torch.empty(0, dtype=tensor.dtype).set_(self.side.untyped_storage(), *key[1:])
        return self.views[key]

    def touch(self, writes: bool = False) -> None:
        """Before the host reads, or writes too."""
        _ops.touch(self.block, writes)

    def read(self, view: Tensor, layout: Hashable, pack: Callable[[], Tensor]) -> Buffer:
        """The copy of `view` in `layout`; where there is none, of what `pack` makes of it, with the host current."""
        self._sort_out()
        key, begin, end = self._place(view, layout)
        copy = self.copies.get(key)
        if copy is not None and self._is_whole(copy):
            return self.memory.used(self, key, copy)
        self.touch()
        packed = pack()
        buffer = self._buffer(key, packed.nbytes)
        buffer.write(packed)
        copy = self.copies[key] = _Copy(buffer, begin, end)
        return self.memory.used(self, key, copy)

    def to_be_written(self, view: Tensor, layout: Hashable, nbytes: int) -> Buffer:
        """The copy of `view` in `layout` if there is one, else memory for it, for a launch to write."""
        self._sort_out()
        key, begin, end = self._place(view, layout)
        others = [k for k, copy in self.copies.items() if k != key and copy.begin < end and begin < copy.end]
        if any(self.copies[k].unpack for k in others):
            self.touch()
        for k in others:
            self.drop(k)
        if key not in self.copies:
            self.copies[key] = _Copy(self._buffer(key, nbytes), begin, end)
        return self.memory.used(self, key, self.copies[key])

    def written(self, view: Tensor, layout: Hashable, unpack: Callable[[Buffer], None]) -> None:
        """A launch has: the board alone is current, until `unpack` is called with the copy's buffer."""
        self.copies[self._place(view, layout)[0]].unpack = unpack
        _ops.set_away(self.block, True)

    def fetch_all(self) -> None:
        for copy in self.copies.values():
            self.fetch(copy)
        _ops.set_away(self.block, False)

    def fetch(self, copy: _Copy) -> None:
        """Make the host's side current. Raises the error of the launch that was to write the copy and failed."""
        if copy.unpack is not None:
            with torch.no_grad():
                copy.unpack(copy.buffer)
            copy.unpack = None

    def drop(self, key: Hashable) -> None:
        copy = self.copies.pop(key)
        self.memory.forget(self, key, copy)
        copy.buffer.free()

    def drop_all(self) -> None:
        for key in list(self.copies):
            self.drop(key)

    def _place(self, view: Tensor, layout: Hashable) -> tuple[Hashable, int, int]:
        begin = view.data_ptr() - self.side.data_ptr()
        reach = sum((size - 1) * stride for size, stride in zip(view.shape, view.stride(), strict=True))
        return (layout, begin, view.shape, view.stride()), begin, begin + (reach + 1) * view.element_size()

    def _sort_out(self) -> None:
        """Drop the copies of what the host has written since."""
        if _ops.take_changed(self.block):
            self.drop_all()

    def _is_whole(self, copy: _Copy) -> bool:
        """Whether no launch failed to write it. What the board alone had is lost then, and reading it says so."""
        try:
            copy.buffer.usable()
        except BoardError:
            if copy.unpack is not None:
                raise
            return False
        return True

    def _buffer(self, key: Hashable, nbytes: int) -> Buffer:
        if key in self.copies:
            self.drop(key)
        return self.memory.allocate(nbytes)

    def lose(self, error: BoardError, memory: Memory) -> None:
        """The board is gone, and another in its place: what only the first had cannot be read any more."""
        self.memory = memory
        for copy in self.copies.values():
            if not isinstance(copy.buffer, _Lost):
                copy.buffer = _Lost(error)


@dataclass
class _Lost:
    """In the place of a buffer of a board that is gone, with all that only it had."""

    error: BoardError
    nbytes: int = 0

    def usable(self) -> None:
        raise type(self.error)(f"the tensor was on a board that is lost: {self.error}") from self.error

    def read(self, *_: Any) -> None:
        self.usable()

    def free(self) -> None: ...
