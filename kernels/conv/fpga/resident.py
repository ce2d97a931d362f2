"""Weights that stay on a board between calls: packed once and flushed once, for as long as their tensor lives and they do not
change. All that a board keeps takes a bounded part of its memory, where what was used longest ago goes first; and all of it
goes where memory is short.

Whether they have changed is found by comparing them with a copy, a pass over memory on the host. torch's version counters
would be cheaper and do not see all: what is written through `.data`, as weights are clipped and averaged, leaves them.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from accelops.targets.fpga.errors import BoardMemoryExhausted

PART_OF_MEMORY = 16  # one in so many of the board's, at most


@dataclass
class _Entry:
    values: Tensor
    buffer: Any


class Resident:
    """The weights on one board. As a context it is one thread's: what a launch reads must not be dropped meanwhile."""

    def __init__(self, driver: Any) -> None:
        self._driver, self._most = weakref.ref(driver), driver.board.ddr.bytes // PART_OF_MEMORY
        self._entries: OrderedDict[tuple[Any, ...], _Entry] = OrderedDict()
        self._owners: dict[int, weakref.ref[Tensor]] = {}
        # Of owners that are gone: noted wherever the collector runs, and acted upon by who has the lock.
        self._gone: deque[int] = deque()
        self._lock = threading.RLock()

    def __enter__(self) -> Resident:
        self._lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def nbytes(self) -> int:
        self._forget_the_gone()
        return sum(entry.buffer.nbytes for entry in self._entries.values())

    def allocate(self, nbytes: int) -> Any:
        """A buffer of the board's, if need be at the cost of all that is kept: to be asked for before `weights`. Raises
        BoardMemoryExhausted."""
        driver = self._driver()
        try:
            return driver.allocate(nbytes)
        except BoardMemoryExhausted:
            if not self._entries:
                raise
            while self._entries:
                self._drop(next(iter(self._entries)))
            return driver.allocate(nbytes)

    def weights(self, owner: Tensor, part: tuple[Any, ...], values: Tensor, pack: Callable[[], Tensor]) -> Any:
        """The buffer with `pack()`, which depends on nothing but `values`: the part `part` of `owner`."""
        self._forget_the_gone()
        key = (id(owner), *part)
        entry = self._entries.get(key)
        if entry is not None and _same(entry.values, values):
            self._entries.move_to_end(key)
            return entry.buffer
        packed = pack()
        if entry is None or entry.buffer.nbytes < packed.nbytes:
            self._drop(key)
            self._make_room(packed.nbytes)
            entry = self._entries[key] = _Entry(values, self.allocate(packed.nbytes))
            self._watch(owner)
        self._entries.move_to_end(key)
        entry.values = torch.empty(0)  # not theirs any more, should the write fail
        entry.buffer.write(packed)
        entry.values = values.clone()
        return entry.buffer

    def _watch(self, owner: Tensor) -> None:
        if id(owner) not in self._owners:
            name = id(owner)
            self._owners[name] = weakref.ref(owner, lambda _: self._gone.append(name))

    def _forget_the_gone(self) -> None:
        while self._gone:
            name = self._gone.popleft()
            del self._owners[name]
            for key in [key for key in self._entries if key[0] == name]:
                self._drop(key)

    def _make_room(self, nbytes: int) -> None:
        while self._entries and self.nbytes + nbytes > self._most:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: tuple[Any, ...]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            entry.buffer.free()


def _same(kept: Tensor, values: Tensor) -> bool:
    """To the bit: -0 is another weight than 0, and NaN the same."""
    return kept.shape == values.shape and torch.equal(kept.view(torch.int32), values.view(torch.int32))


_on: weakref.WeakKeyDictionary[Any, Resident] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def on(driver: Any) -> Resident:
    with _making:
        if driver not in _on:
            _on[driver] = Resident(driver)
        return _on[driver]
