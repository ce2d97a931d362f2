"""Where tensors of device "fpga" are: in host memory, in copies on their board, or in both.

The memory of such a tensor, a block of device.cpp, has a Home here once a kernel has used it (memory.py). Kernels see the
tensors by their host's sides (`side`, `host`), plain tensors of the CPU, and ask `home` for what the board has of them.
For a tensor of the CPU itself all this is nothing: its side is itself, and it has no home.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..discovery import current, on
from ..driver import Driver
from ..errors import BoardError
from .memory import Home, Memory

_ops = torch.ops.accelops_fpga

_memories: list[Memory] = []
_homes: dict[int, Home] = {}  # by block
_of_sides: dict[int, Home] = {}  # by the storage of the host's side


def attach(drivers: Sequence[Driver]) -> None:
    """Make these the boards of fpga:0, fpga:1 and so on. What others had is fetched first, where they still answer."""
    _forget_the_freed()
    new = [Memory(index, driver) for index, driver in enumerate(drivers)]
    for owner in list(_homes.values()):
        with owner.memory.lock:
            owner.memory.in_use.clear()
            try:
                owner.touch()
            except BoardError as error:
                owner.lose(error, next((m for m in new if m.index == owner.memory.index), owner.memory))
            else:
                owner.drop_all()
                _forget(owner)
    _memories[:] = new
    _ops.set_device_count(len(new))


def memory(index: int) -> Memory:
    _forget_the_freed()
    if not 0 <= index < len(_memories):
        raise RuntimeError(f"fpga: no device fpga:{index}; there are {len(_memories)} (accelops.fpga_device)")
    return _memories[index]


def memories() -> list[Memory]:
    return list(_memories)


@contextmanager
def board_of(tensor: Tensor) -> Iterator[Driver]:
    """The board that works on `tensor`: its own, with nothing else going on there, or the one in use for the CPU's."""
    if tensor.device.type != "fpga":
        yield current()
        return
    own = memory(tensor.device.index)
    own.check_process()
    with own.lock, on(own.driver), torch.fpga.device(tensor.device):
        own.in_use.clear()
        yield own.driver


def side(tensor: Tensor) -> Tensor:
    """The host's side of a tensor, which may be old: a tensor of the CPU itself, or plain memory of one of the device."""
    if tensor.device.type != "fpga":
        return tensor
    block = _ops.block(tensor)
    if not block:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    _forget_the_freed()
    found = _homes.get(block)
    if found is None:
        found = _homes[block] = Home(memory(tensor.device.index), block)
        _of_sides[found.side.untyped_storage()._cdata] = found
    return found.view_of(tensor)


def home(view: Tensor) -> Home | None:
    """Whose host's side `view` is of; None for a tensor of the CPU itself."""
    return _of_sides.get(view.untyped_storage()._cdata)


def host(tensor: Tensor, writes: bool = False) -> Tensor:
    """The host's side, current, for reading or for writing too."""
    found = side(tensor)
    settle(found, writes)
    return found


def settle(view: Tensor, writes: bool = False) -> None:
    """Make a host's side current, for reading or for writing too; nothing to do for a tensor of the CPU itself."""
    owner = home(view)
    if owner is not None:
        owner.touch(writes)


def fetch(block: int) -> None:
    """What torch calls before the host looks at a block that a board has written."""
    owner = _homes.get(block)
    if owner is not None:
        owner.memory.check_process()
        with owner.memory.lock:
            owner.fetch_all()


def _forget_the_freed() -> None:
    for block in _ops.take_freed():
        owner = _homes.get(block)
        if owner is not None:
            _forget(owner)
            owner.memory.gone.append(owner)


def _forget(owner: Home) -> None:
    del _homes[owner.block], _of_sides[owner.side.untyped_storage()._cdata]
