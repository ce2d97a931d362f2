"""The tables on the device from which the kernels learn where the tensors are, kept between steps.

A table is kept by what stands in it, so that none can be out of date: addresses of parameters and state, which stay;
addresses of gradients, which may move with every backward pass; the chunks that tensors of given sizes are cut into.

The first kinds are made once, and wait until they are there, so that any stream may read them. The table of gradients is
copied from pinned memory in the order of the stream, and waits for nothing.

Under the capture of a CUDA graph a table is written by kernels that have its numbers as their arguments. A copy would be
made again by each replay, from host memory that must then outlive the graph, and before torch 2.10 pinned memory cannot be
allocated at all while a graph is captured. Kept tables that a graph reads are never dropped: nobody says when it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOST = 256

_kept: dict[Any, Tensor] = {}
_captured: dict[Any, Tensor] = {}


def fixed(values: tuple[int, ...], device: torch.device) -> Tensor:
    """int64 numbers that will be asked for again, such as addresses of state."""
    return _shared((values, device), device, lambda: _uploaded(values, device))


def chunks(sizes: tuple[int, ...], chunk: int, device: torch.device) -> Tensor:
    """int32 (row, index) of the pieces of at most `chunk` elements that tensors of `sizes` are cut into."""
    return _shared((sizes, chunk, device), device, lambda: _cut(sizes, chunk, device))


def moving(values: tuple[int, ...], device: torch.device) -> Tensor:
    """int64 numbers that may be others at the next step: addresses of gradients."""
    if _capturing(device):
        return _uploaded(values, device)
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None
    return _kept_or((values, device, stream), lambda: _uploaded(values, device))


def floats(values: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """fp32 numbers for one step, in the order of the stream."""
    table = torch.tensor(values, dtype=torch.float32, pin_memory=device.type == "cuda")
    return table.to(device, non_blocking=True)


def _cut(sizes: tuple[int, ...], chunk: int, device: torch.device) -> Tensor:
    counts = [-(-size // chunk) for size in sizes]
    pieces = _uploaded(tuple(counts), device)
    row = torch.repeat_interleave(pieces, output_size=sum(counts))
    before = pieces.cumsum(0) - pieces
    index = torch.arange(row.numel(), device=device) - before[row]
    return torch.stack((row, index), 1).int()


def _shared(key: Any, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
    """A table that any stream may read."""
    if _capturing(device):
        return _captured.setdefault(key, _kept[key]) if key in _kept else make()
    if device.type != "cuda":
        return _kept_or(key, make)

    def made() -> Tensor:
        table = make()
        torch.cuda.current_stream(device).synchronize()
        return table

    table = _kept_or(key, made)
    table.record_stream(torch.cuda.current_stream(device))  # should it be dropped while this stream still reads it
    return table


def _kept_or(key: Any, make: Callable[[], Tensor]) -> Tensor:
    found = _kept.get(key)
    if found is None:
        found = make()
        while len(_kept) >= MOST:
            _kept.pop(next(iter(_kept)), None)  # the oldest
        _kept[key] = found
    return found


def _capturing(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


def _uploaded(values: tuple[int, ...], device: torch.device) -> Tensor:
    if _capturing(device):
        table = torch.zeros(len(values), dtype=torch.int64, device=device)
        torch._foreach_add_(list(table.unbind()), list(values))
        return table
    table = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
    return table.to(device, non_blocking=True)
