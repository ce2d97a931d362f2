"""The module torch.fpga: what torch, its optimizers, its checkpoints and its users ask of a device by its name.

Random numbers are drawn on the CPU, from its generator: `torch.manual_seed` gives the same ones on the board. Launches block,
so there is nothing to wait for.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

import torch

from . import residence

_ops = torch.ops.accelops_fpga
_process = os.getpid()


class device:
    """Within this context tensors without an index are made on this board: an index, torch.device or "fpga:1"."""

    def __init__(self, device: Any) -> None:
        self._index, self._before = _index(device), -1

    def __enter__(self) -> None:
        self._before = _ops.exchange_device(self._index)

    def __exit__(self, *error: object) -> None:
        _ops.exchange_device(self._before)


def _index(given: Any) -> int:
    if given is None:
        return current_device()
    if isinstance(given, int):
        return given
    found = torch.device(given)
    if found.type != "fpga":
        raise ValueError(f"device={given!r} is no board: expected an index or fpga:INDEX")
    return current_device() if found.index is None else found.index


def init() -> None:
    """Boards are connected to before the device is there."""


def is_available() -> bool:
    return device_count() > 0


def is_initialized() -> bool:
    return True


def _is_in_bad_fork() -> bool:
    return os.getpid() != _process


def device_count() -> int:
    return len(residence.memories())


def current_device() -> int:
    return _ops.current_device()


def set_device(device: Any) -> None:
    _ops.exchange_device(_index(device))


def get_device_name(device: Any = None) -> str:
    """Of the board, with where it is."""
    driver = residence.memory(_index(device)).driver
    return f"{driver.board.title}{', emulated' if driver.emulated else ''}, {driver.where}"


def synchronize(device: Any = None) -> None:
    """Launches block."""


def manual_seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)


manual_seed_all = manual_seed


def seed() -> None:
    torch.default_generator.seed()


seed_all = seed


def initial_seed() -> int:
    return torch.default_generator.initial_seed()


def get_rng_state(device: Any = None) -> torch.Tensor:
    return torch.default_generator.get_state()


def set_rng_state(new_state: torch.Tensor, device: Any = None) -> None:
    torch.default_generator.set_state(new_state)


def get_amp_supported_dtype() -> NoReturn:
    """torch.autocast asks."""
    raise RuntimeError(
        "torch.autocast('fpga') is not supported: the kernels of boards for training compute in float32; leave autocast out"
    )


def memory_allocated(device: Any = None) -> int:
    """Bytes of board memory that copies of tensors take. A tensor that no kernel has used takes none."""
    return residence.memory(_index(device)).held


def max_memory_allocated(device: Any = None) -> int:
    return residence.memory(_index(device)).peak


def reset_peak_memory_stats(device: Any = None) -> None:
    of = residence.memory(_index(device))
    of.peak = of.held


def memory_reserved(device: Any = None) -> int:
    """Bytes of all buffers in use on the board, also those that are no tensor's."""
    return residence.memory(_index(device)).driver.held


def memory_stats(device: Any = None) -> dict[str, int]:
    """All figures of a board: bytes; `launches`, `switches` of its overlays; bytes that went there and came back."""
    driver = residence.memory(_index(device)).driver
    return {
        "allocated": memory_allocated(device),
        "max_allocated": max_memory_allocated(device),
        "reserved": driver.held,
        "flushed": driver.moved.flushed,
        "fetched": driver.moved.fetched,
        "launches": driver.counts.launches,
        "switches": driver.counts.switches,
    }


def empty_cache() -> None:
    """Fetch what the boards alone have, and free the memory that copies of tensors take there."""
    for of in residence.memories():
        with of.lock:
            of.in_use.clear()
            of.release()
