"""Bucketing on the GPU in Triton: a list of any length is packed, or unpacked, by one launch; buffers are summed by one.

A program moves one chunk: a piece of one tensor, at most `block` elements. It finds its tensor by bisection in a table with
one row for each (chunks.py): the multi-tensor launch of NVIDIA's apex (csrc/multi_tensor_apply.cuh), with a table in memory
in the place of kernel arguments, which hold a few hundred tensors. A row is 32 bytes, so the table of a whole network stays
in the caches; a list of all chunks, which would spare the bisection, is read once and comes from memory.

Every element is read once and written once, BucketSpec.bytes; with one product, and an addition for each further rank.

A tensor with gaps has no run to move: it goes through a copy of its own, which costs its bytes twice more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from accelops.targets import triton as gpu

from . import chunks
from .layout import Layout, addresses, layout
from .spec import MIXED, WIRE_DTYPES, BucketSpec

DTYPES = {"float32": tl.float32, "bfloat16": tl.bfloat16, "float16": tl.float16}
ROW, LINE = tl.constexpr(chunks.ROW), tl.constexpr(chunks.LINE)


@dataclass(frozen=True)
class Config:
    """`block`: elements of a chunk, a power of two."""

    block: int
    num_warps: int


def unsupported(spec: BucketSpec) -> list[str]:
    reasons = []
    if spec.device not in gpu.devices():
        reasons.append(f"runs on {gpu.devices()[0]} tensors, not on {spec.device}")
    if spec.dtype not in (*WIRE_DTYPES, MIXED):
        reasons.append(f"dtype {spec.dtype}: tensors are {', '.join(WIRE_DTYPES)}")
    if spec.wire_dtype not in WIRE_DTYPES:
        reasons.append(f"wire_dtype {spec.wire_dtype}: a wire is {', '.join(WIRE_DTYPES)}")
    return reasons


def configs(spec: BucketSpec) -> list[Config]:
    """A chunk waits for the table before it reads its elements; 32 of them a thread keep 64 to 128 bytes of each thread on
    the way then, which is meant to cover the wait."""
    return [Config(4096, 4), Config(2048, 4), Config(8192, 8), Config(1024, 4), Config(4096, 8)]


def heuristic(spec: BucketSpec) -> tuple[None, str]:
    return None, "no GPU has measured it yet; accelops.tune measures it on this one"


@triton.jit(do_not_specialize=["tensors"])
def move(
    flat, residual, scale, rows, tensors,
    DTYPE: tl.constexpr, PACK: tl.constexpr, FEEDBACK: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Pack or unpack one chunk. DTYPE is that of all tensors, or None where the rows say it of each."""
    chunk = tl.program_id(0)
    low, high = 0, tensors
    while high - low > 1:
        middle = (low + high) // 2
        before = tl.load(rows + ROW * middle) <= chunk
        low, high = tl.where(before, middle, low), tl.where(before, high, middle)
    row = rows + ROW * low
    index, begin, address = chunk - tl.load(row), tl.load(row + 1), tl.load(row + 2)
    numel = tl.load(row + ROW + 1) - begin
    # A tensor's first chunk is shorter, so that all others begin at a line of the buffer and no two share one of it.
    step = index * BLOCK - begin % LINE
    first = tl.maximum(step, 0)
    length = (tl.minimum(step + BLOCK, numel) - first).to(tl.int32)
    if DTYPE is None:
        code = tl.load(row + 3)
        if code == 0:
            move_run(flat, residual, scale, address, begin, first, length, tl.float32, PACK, FEEDBACK, VECTOR, BLOCK)
        elif code == 1:
            move_run(flat, residual, scale, address, begin, first, length, tl.bfloat16, PACK, FEEDBACK, VECTOR, BLOCK)
        else:
            move_run(flat, residual, scale, address, begin, first, length, tl.float16, PACK, FEEDBACK, VECTOR, BLOCK)
    else:
        move_run(flat, residual, scale, address, begin, first, length, DTYPE, PACK, FEEDBACK, VECTOR, BLOCK)


@triton.jit
def move_run(
    flat, residual, scale, address, begin, first, length,
    DTYPE: tl.constexpr, PACK: tl.constexpr, FEEDBACK: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`length` elements from `first` on of the tensor at `address`, and their place in `flat` from `begin` + `first` on.

    Where tensor and place both begin at 16 bytes, a thread moves VECTOR elements at once: so do all tensors of a network
    whose sizes are multiples of VECTOR, up to their last. After one of another size its neighbours' places are odd, and no
    choice of chunks aligns both sides: each thread then moves single elements, in whole lines all the same.
    """
    if (address % 16) + (begin % VECTOR) + (length % VECTOR) == 0:
        data = tl.multiple_of(address.to(tl.pointer_type(DTYPE)), VECTOR * DTYPE.primitive_bitwidth // 8)
        # What is a multiple of VECTOR already is made one that the compiler can see.
        first, length = first // VECTOR * VECTOR, length // VECTOR * VECTOR
        place = begin // VECTOR * VECTOR + first
        move_elements(data + first, flat + place, residual + place, length, scale, PACK, FEEDBACK, BLOCK)
    else:
        data = address.to(tl.pointer_type(DTYPE)) + first
        place = begin + first
        # In pieces, whose shape keeps the compiler from giving these threads VECTOR elements as well.
        for at in range(0, length, BLOCK // 4):
            move_elements(
                data + at, flat + place + at, residual + place + at, length - at, scale, PACK, FEEDBACK, BLOCK // 4
            )


@triton.jit
def move_elements(data, flat, residual, length, scale, PACK: tl.constexpr, FEEDBACK: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    inside = i < length
    if PACK:
        exact = tl.load(data + i, mask=inside).to(tl.float32) * scale
        if FEEDBACK:
            exact += tl.load(residual + i, mask=inside)
        sent = exact.to(flat.dtype.element_ty)
        tl.store(flat + i, sent, mask=inside)
        if FEEDBACK:
            arrives = sent.to(tl.float32)
            lost = tl.where(tl.abs(arrives) < float("inf"), exact - arrives, 0.0)  # not where it is NaN either
            tl.store(residual + i, lost, mask=inside)
    else:
        exact = tl.load(flat + i, mask=inside).to(tl.float32) * scale
        tl.store(data + i, exact.to(data.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["numel", "ranks"])
def reduce(
    out, scale, flats, numel, ranks,
    DTYPE: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK elements of scale * (flats[0] + flats[1] + ...), whose addresses stand in `flats`, added in this order. Where
    each of them begins at 16 bytes a thread moves VECTOR elements at once; else VECTOR is 1."""
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    length = tl.minimum(numel - begin, BLOCK).to(tl.int32)
    if length % VECTOR == 0:
        length = length // VECTOR * VECTOR
        reduce_elements(out, scale, flats, begin, length, ranks, DTYPE, VECTOR, BLOCK)
    else:
        for at in range(0, length, BLOCK // 4):
            reduce_elements(out, scale, flats, begin + at, length - at, ranks, DTYPE, 1, BLOCK // 4)


@triton.jit
def reduce_elements(
    out, scale, flats, begin, length, ranks, DTYPE: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr
):
    i = tl.arange(0, BLOCK)
    inside = i < length
    total = tl.zeros([BLOCK], tl.float32)
    for rank in range(ranks):
        flat = tl.load(flats + rank).to(tl.pointer_type(DTYPE))
        if VECTOR > 1:
            flat = tl.multiple_of(flat, VECTOR * DTYPE.primitive_bitwidth // 8)
        total += tl.load(flat + begin + i, mask=inside).to(tl.float32)
    tl.store(out + begin + i, (total * scale).to(out.dtype.element_ty), mask=inside)


def run(config: Config, spec: BucketSpec, *operands: Any) -> None:
    """pack (tensors, flat, scale, residual or None); unpack (flat, tensors, scale); reduce (flats, out, scale)."""
    if not spec.numel:
        return
    with torch.cuda.device_of(operands[0] if spec.direction == "unpack" else operands[1]):
        {"pack": _pack, "unpack": _unpack, "reduce": _reduce}[spec.direction](config, spec, *operands)


def _pack(
    config: Config, spec: BucketSpec, tensors: Sequence[Tensor], flat: Tensor, scale: float, residual: Tensor | None
) -> None:
    found = layout(tensors)
    without_gaps = [t if p.dense else t.contiguous() for t, p in zip(tensors, found.places, strict=True)]
    _move(config, spec, found, without_gaps, flat, scale, residual)


def _unpack(config: Config, spec: BucketSpec, flat: Tensor, tensors: Sequence[Tensor], scale: float) -> None:
    found = layout(tensors)
    gaps = [i for i, p in enumerate(found.places) if not p.dense]
    without_gaps = list(tensors)
    for i in gaps:
        without_gaps[i] = torch.empty_like(tensors[i], memory_format=torch.contiguous_format)
    _move(config, spec, found, without_gaps, flat, scale, None)
    if gaps:
        torch._foreach_copy_([tensors[i] for i in gaps], [without_gaps[i] for i in gaps])


def _move(
    config: Config,
    spec: BucketSpec,
    found: Layout,
    tensors: Sequence[Tensor],
    flat: Tensor,
    scale: float,
    residual: Tensor | None,
) -> None:
    cut = chunks.cut(found, config.block)
    gpu.launch(
        move,
        (cut.chunks,),
        flat,
        flat if residual is None else residual,
        float(scale),
        chunks.table(flat.device, addresses(tensors), cut),
        cut.tensors,
        DTYPE=DTYPES.get(spec.dtype),
        PACK=spec.direction == "pack",
        FEEDBACK=residual is not None,
        VECTOR=4 if residual is not None else _vector(spec.wire_dtype if spec.direction == "pack" else spec.dtype),
        BLOCK=config.block,
        num_warps=config.num_warps,
    )


def _reduce(config: Config, spec: BucketSpec, flats: Sequence[Tensor], out: Tensor, scale: float) -> None:
    where = addresses(flats)
    gpu.launch(
        reduce,
        (triton.cdiv(spec.numel, config.block),),
        out,
        float(scale),
        chunks.table(out.device, where),
        spec.numel,
        len(flats),
        DTYPE=DTYPES[spec.wire_dtype],
        VECTOR=_vector(spec.dtype) if all(address % 16 == 0 for address in where) else 1,
        BLOCK=config.block,
        num_warps=config.num_warps,
    )


def _vector(stored: str) -> int:
    """Elements in 16 bytes of the widest dtype that is stored. Narrower ones are moved by fewer bytes at once: were each
    moved by 16, elements would change threads between load and store, through shared memory."""
    return 4 if stored in ("float32", MIXED) else 8
