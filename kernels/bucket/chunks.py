"""Lists of tensors cut into chunks for a GPU, and the tables on the device that tell a kernel where each chunk lies.

A row of a table: the tensor's first chunk, where it begins in the flat buffer, its address, the code of its dtype; int64. A
chunk belongs to the last row whose first chunk is not behind it. A last row says where chunks and buffer end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .layout import Layout

ROW = 4
CODES = {"float32": 0, "bfloat16": 1, "float16": 2}
LINE = 64  # elements of a 16-bit buffer in one line of a GPU's cache
MOST_TABLES = 256


@dataclass(frozen=True, eq=False)
class Cut:
    """A list cut into `chunks` pieces; `tensors` of the list have elements, in its order those with the indices `owners`.
    `rows` is the table without addresses."""

    chunks: int
    tensors: int
    owners: tuple[int, ...]
    rows: tuple[int, ...]


@lru_cache(maxsize=256)
def cut(found: Layout, block: int) -> Cut:
    """Chunks of at most `block` elements. The first of a tensor is shorter, so that all its others begin at a line of the
    buffer."""
    chunks, end, rows, owners = 0, 0, [], []
    for i, place in enumerate(found.places):
        if place.numel:
            rows += [chunks, place.begin, 0, CODES[place.dtype]]
            owners.append(i)
            chunks -= -(place.begin % LINE + place.numel) // block
            end = place.begin + place.numel
    return Cut(chunks, len(owners), tuple(owners), (*rows, chunks, end, 0, 0))


_kept: OrderedDict[Any, tuple[Tensor, int]] = OrderedDict()  # tables, with the streams on which they were made
_captured: dict[Any, Tensor] = {}  # those that a graph reads, for ever: nobody says when it ends


def table(device: torch.device, addresses: Sequence[int], of: Cut | None = None) -> Tensor:
    """The table of a list, or the addresses alone, on torch's current `device`; kept by what stands in it, so that it
    cannot be out of date.

    Under the capture of a CUDA graph a table that was kept before is there already (torch.cuda.graph waits for the device
    before it captures). One that was not is made by the graph, in its own memory, at each replay: by torch's foreach
    kernel, whose numbers are launch arguments, about a hundred a launch. A copy from the host would be replayed too, from
    memory that must outlive the graph.
    """
    key, stream = (device, tuple(addresses), of), _stream(device)
    found, made_on = _kept.get(key, (None, None))
    if stream is None:
        return _by_launches(device, _numbers(addresses, of)) if found is None else _captured.setdefault(key, found)
    if found is None or made_on != stream:
        # The copy does not wait for the GPU: what is not pinned has left the host's memory when it returns. A table that
        # is dropped is freed behind the launches that read it, which are of its stream.
        found = torch.tensor(_numbers(addresses, of), dtype=torch.int64, device="cpu").to(device, non_blocking=True)
        while len(_kept) >= MOST_TABLES:
            _kept.popitem(last=False)
        _kept[key] = found, stream
    return found


def _stream(device: torch.device) -> int | None:
    """The stream that launches go to; None while it is captured."""
    if device.type != "cuda":
        return 0
    return None if torch.cuda.is_current_stream_capturing() else torch.cuda.current_stream().cuda_stream


def _by_launches(device: torch.device, numbers: Sequence[int]) -> Tensor:
    made = torch.zeros(len(numbers), dtype=torch.int64, device=device)
    torch._foreach_add_(made.unbind(), numbers)
    return made


def _numbers(addresses: Sequence[int], of: Cut | None) -> Sequence[int]:
    if of is None:
        return addresses
    numbers = list(of.rows)
    numbers[2:-ROW:ROW] = [addresses[i] for i in of.owners]
    return numbers
