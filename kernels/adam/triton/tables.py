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

from array import array
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOST = 256

Numbers = tuple[int, ...] | bytes  # of 8 bytes each

_kept: dict[Any, tuple[Tensor, int]] = {}  # and the stream that a table was made in
_captured: dict[Any, Tensor] = {}


class Tables:
    """The tables for one step on `device`, in the stream that is current there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_gpu = device.type == "cuda"
        self.stream = torch.cuda.current_stream(device).cuda_stream if self.on_gpu else 0
        self.capturing = self.on_gpu and _capturing(device)

    def fixed(self, values: Numbers) -> Tensor:
        """int64 numbers that will be asked for again, such as addresses of state."""
        return self._shared((self.device, values), lambda: self._uploaded(values))

    def chunks(self, sizes: tuple[int, ...], chunk: int) -> Tensor:
        """int32 (row, index) of the pieces of at most `chunk` elements that tensors of `sizes` are cut into."""
        return self._shared((self.device, sizes, chunk), lambda: self._cut(sizes, chunk))

    def moving(self, values: Numbers) -> Tensor:
        """int64 numbers that may be others at the next step: addresses of gradients."""
        if self.capturing:
            return self._uploaded(values)
        return self._kept_or((self.device, values, "moving", self.stream), lambda: self._uploaded(values))[0]

    def floats(self, rows: tuple[tuple[float, ...], ...]) -> Tensor:
        """fp32 numbers for this step."""
        table = torch.tensor(rows, dtype=torch.float32, device="cpu", pin_memory=self.on_gpu)
        return table.to(self.device, non_blocking=True)

    def _shared(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """A table that any stream may read."""
        if self.capturing:
            if key in _kept:
                return _captured.setdefault(key, _kept[key][0])
            return _captured[key] if key in _captured else make()

        def made() -> Tensor:
            table = make()
            if self.on_gpu:
                torch.cuda.current_stream(self.device).synchronize()
            return table

        table, stream = self._kept_or(key, made)
        if stream != self.stream:  # should it be dropped while this one still reads it
            table.record_stream(torch.cuda.current_stream(self.device))
        return table

    def _kept_or(self, key: Any, make: Callable[[], Tensor]) -> tuple[Tensor, int]:
        found = _kept.get(key)
        if found is None:
            found = make(), self.stream
            while len(_kept) >= MOST:
                _kept.pop(next(iter(_kept)), None)  # the oldest
            _kept[key] = found
        return found

    def _uploaded(self, values: Numbers) -> Tensor:
        numbers = array("q", values)
        if self.capturing:
            table = torch.zeros(len(numbers), dtype=torch.int64, device=self.device)
            torch._foreach_add_(list(table.unbind()), numbers.tolist())
            return table
        table = (
            torch.frombuffer(numbers, dtype=torch.int64) if numbers else torch.empty(0, dtype=torch.int64, device="cpu")
        )
        return (table.pin_memory() if self.on_gpu else table).to(self.device, non_blocking=True, copy=True)

    def _cut(self, sizes: tuple[int, ...], chunk: int) -> Tensor:
        counts = [-(-size // chunk) for size in sizes]
        pieces = self._uploaded(tuple(counts))
        row = torch.repeat_interleave(pieces, output_size=sum(counts))
        before = pieces.cumsum(0) - pieces
        index = torch.arange(row.numel(), device=self.device) - before[row]
        return torch.stack((row, index), 1).int()


def _capturing(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()
