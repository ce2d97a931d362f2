"""Bucketing on an FPGA board, by hls/bucket: the sum of the ranks' buffers, in their order, in fp32, scaled and rounded once.

A list is packed by its way onto the board, tensor after tensor into one flat array, and unpacked by the way back; what is
scaled or cast in between is the sum of one rank. With error feedback a second launch adds the residual, and the host rounds
what it is to remember. The board knows fp32 and bf16: fp16 is widened before it, exactly, and rounded behind it, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accelops.targets import fpga
from accelops.targets.fpga import model

from . import native
from .layout import views
from .spec import BucketSpec

WIRE_BF16, OUT_BF16 = 1, 2  # flags of hls/bucket/reduce.hpp
PART_OF_MEMORY = 16  # a launch takes at most one part in so many: allocations must be contiguous, and others want room


@dataclass(frozen=True)
class Config:
    """Nothing to choose: memory sets the pace."""


def unsupported(spec: BucketSpec) -> list[str]:
    return native.unsupported(spec)


def configs(spec: BucketSpec) -> list[Config]:
    return [Config()]


def run(config: Config, spec: BucketSpec, *operands: Any) -> None:
    """pack (tensors, flat, scale, residual or None); unpack (flat, tensors, scale); reduce (flats, out, scale)."""
    if spec.numel:
        {"pack": _pack, "unpack": _unpack, "reduce": _reduce}[spec.direction](*operands)


def _pack(tensors: Sequence[Tensor], flat: Tensor, scale: float, residual: Tensor | None) -> None:
    gathered = _gathered(tensors)
    if residual is None:
        flat.copy_(_sum([gathered], scale, flat.dtype))
        return
    exact = _sum([_sum([gathered], scale, torch.float32), residual], 1.0, torch.float32)
    flat.copy_(exact)
    torch.sub(exact, flat, out=residual)
    residual.masked_fill_(flat.isfinite().logical_not_(), 0.0)


def _gathered(tensors: Sequence[Tensor]) -> Tensor:
    """All elements in the order of the buffer, in the dtype that they share, or else in fp32."""
    dtypes = {tensor.dtype for tensor in tensors}
    gathered = torch.empty(sum(t.numel() for t in tensors), dtype=dtypes.pop() if len(dtypes) == 1 else torch.float32)
    torch._foreach_copy_(views(gathered, tensors), list(tensors))
    return gathered


def _unpack(flat: Tensor, tensors: Sequence[Tensor], scale: float) -> None:
    dtypes = {tensor.dtype for tensor in tensors}
    made = _sum([flat], scale, dtypes.pop() if len(dtypes) == 1 else torch.float32)
    torch._foreach_copy_(list(tensors), views(made, tensors))


def _reduce(flats: Sequence[Tensor], out: Tensor, scale: float) -> None:
    out.copy_(_sum(flats, scale, out.dtype))


def _sum(flats: Sequence[Tensor], scale: float, dtype: torch.dtype) -> Tensor:
    """scale * (flats[0] + flats[1] + ...): bf16 where that is asked for, else fp32. In several launches where their arrays
    would take too much of the board's memory."""
    driver, out = fpga.current(), torch.bfloat16 if dtype is torch.bfloat16 else torch.float32
    most = max(1, driver.board.ddr.bytes // PART_OF_MEMORY // (4 * (len(flats) + 1)))
    pieces = [_launch(driver, piece, scale, out) for piece in zip(*(flat.split(most) for flat in flats), strict=True)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _launch(driver: Any, flats: Sequence[Tensor], scale: float, out: torch.dtype) -> Tensor:
    wire = flats[0].dtype if flats[0].dtype is torch.bfloat16 else torch.float32
    numel, beat = len(flats[0]), driver.board.beat_bytes
    row = model.ceil_div(numel * wire.itemsize, beat)
    with ExitStack() as held:
        given = held.enter_context(driver.allocate(len(flats) * row * beat))
        for rank, flat in enumerate(flats):
            given.write(flat.to(wire), rank * row * beat)
        made = held.enter_context(driver.allocate(model.ceil_div(numel * out.itemsize, beat) * beat))
        descriptors = held.enter_context(driver.allocate(16))
        descriptors.write(np.array([0, row, 0, numel], np.uint32))  # first beat, beats to the next rank, first beat out
        wire_bf16, out_bf16 = wire is torch.bfloat16, out is torch.bfloat16
        driver.run(
            "reduce",
            model.reduce(driver.board, [numel], len(flats), wire_bf16, out_bf16),
            **{f"flats{i}": given for i in range(4)},
            **{f"out{i}": made for i in range(4)},
            descriptors=descriptors,
            buckets=1,
            ranks=len(flats),
            scale=float(scale),
            flags=WIRE_BF16 * wire_bf16 | OUT_BF16 * out_bf16,
        )
        found = torch.from_numpy(made.read(np.int16 if out_bf16 else np.float32, numel))
    return found.view(torch.bfloat16) if out_bf16 else found
