"""The ops accelops::bucket_pack_, bucket_unpack_ and bucket_reduce_: schemas, fakes, checks, and the way to a Selection.

They write into their operands and return nothing, so the version counters of what they wrote are raised here, and there is
no autograd: operands that require grad are refused, as by torch's own out= functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from accelops.kernels.bucket.layout import addresses
from accelops.kernels.bucket.spec import MIXED, WIRE_DTYPES, BucketSpec
from accelops.targets import unavailable

from .select import select

_library = torch.library.Library("accelops", "FRAGMENT")
_TAGS = (torch.Tag.pt2_compliant_tag,)
_WIRES = {getattr(torch, name): name for name in WIRE_DTYPES}
_REAL = {**_WIRES, torch.float64: "float64"}


def _pack(
    tensors: list[Tensor], flat: Tensor, scale: float = 1.0, residual: Tensor | None = None, target: str | None = None
) -> None:
    check_pack(tensors, flat, residual)
    if flat.numel() == 0:
        return
    _refuse_shared_memory("bucket_pack_", tensors, flat, written=False)
    feedback = residual is not None
    spec = _spec("pack", tensors, flat, error_feedback=feedback)
    select(spec, target).run(tensors, flat, scale, residual)
    torch.autograd.graph.increment_version((flat, residual) if feedback else flat)


def _unpack(flat: Tensor, tensors: list[Tensor], scale: float = 1.0, target: str | None = None) -> None:
    check_unpack(flat, tensors)
    if flat.numel() == 0:
        return
    _refuse_shared_memory("bucket_unpack_", tensors, flat, written=True)
    select(_spec("unpack", tensors, flat), target).run(flat, tensors, scale)
    torch.autograd.graph.increment_version(tensors)


def _reduce(flats: list[Tensor], out: Tensor, scale: float = 1.0, target: str | None = None) -> None:
    check_reduce(flats, out)
    if out.numel() == 0:
        return
    begin, end = out.data_ptr(), out.data_ptr() + out.nbytes
    for rank, flat in enumerate(flats if _has_memory(out) else ()):
        exact = flat.data_ptr() == begin and flat.dtype == out.dtype
        if not exact and flat.data_ptr() < end and begin < flat.data_ptr() + flat.nbytes:
            raise RuntimeError(
                f"bucket_reduce_: out overlaps flats[{rank}]; give it memory of its own or exactly that of one of them"
            )
    spec = BucketSpec(
        "reduce", out.numel(), 1, _REAL[out.dtype], _WIRES[flats[0].dtype], len(flats), device=out.device.type
    )
    select(spec, target).run(flats, out, scale)
    torch.autograd.graph.increment_version(out)


def _spec(direction: str, tensors: Sequence[Tensor], flat: Tensor, error_feedback: bool = False) -> BucketSpec:
    dtypes = {t.dtype for t in tensors}
    dtype = "float64" if torch.float64 in dtypes else MIXED if len(dtypes) > 1 else _REAL[dtypes.pop()]
    wire = _WIRES[flat.dtype]
    return BucketSpec(
        direction, flat.numel(), len(tensors), dtype, wire, error_feedback=error_feedback, device=flat.device.type
    )


def check_pack(tensors: Sequence[Tensor], flat: Tensor, residual: Tensor | None) -> None:
    """Raises RuntimeError for operands that do not fit, naming the one at fault."""
    _check_flat("bucket_pack_", "flat", flat, sum(t.numel() for t in tensors))
    _check_tensors("bucket_pack_", tensors, flat)
    if residual is None:
        return
    _check_flat("bucket_pack_", "residual", residual, flat.numel())
    if residual.dtype is not torch.float32 or residual.device != flat.device:
        raise RuntimeError(
            f"bucket_pack_: residual is {residual.dtype} on {residual.device}; expected torch.float32 on {flat.device}"
        )


def check_unpack(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Raises RuntimeError for operands that do not fit, naming the one at fault."""
    _check_flat("bucket_unpack_", "flat", flat, sum(t.numel() for t in tensors))
    _check_tensors("bucket_unpack_", tensors, flat)


def check_reduce(flats: Sequence[Tensor], out: Tensor) -> None:
    """Raises RuntimeError for operands that do not fit, naming the one at fault."""
    if not flats:
        raise RuntimeError("bucket_reduce_: flats is empty; expected the buffer of at least one rank")
    _check_flat("bucket_reduce_", "out", out, out.numel())
    for rank, flat in enumerate(flats):
        _check_flat("bucket_reduce_", f"flats[{rank}]", flat, out.numel())
        if flat.dtype != flats[0].dtype or flat.device != out.device:
            raise RuntimeError(
                f"bucket_reduce_: flats[{rank}] is {flat.dtype} on {flat.device}; expected {flats[0].dtype} on {out.device}"
            )


def _check_flat(op: str, name: str, flat: Tensor, numel: int) -> None:
    if flat.dim() != 1 or not flat.is_contiguous() or flat.numel() != numel:
        raise RuntimeError(
            f"{op}: {name} has shape {tuple(flat.shape)} and strides {flat.stride()}; expected a contiguous ({numel},)"
        )
    if flat.dtype not in _WIRES:
        raise RuntimeError(f"{op}: {name} is {flat.dtype}; expected one of {', '.join(map(str, _WIRES))}")
    _refuse_grad(op, name, flat)


def _check_tensors(op: str, tensors: Sequence[Tensor], flat: Tensor) -> None:
    device = flat.device
    for i, t in enumerate(tensors):
        if t.dtype not in _REAL or t.device != device or t.layout is not torch.strided or t.requires_grad:
            if t.device != device:
                raise RuntimeError(f"{op}: tensors[{i}] is on {t.device} and flat on {device}; move one of them")
            if t.layout is not torch.strided:
                raise RuntimeError(f"{op}: tensors[{i}] is {t.layout}; expected a dense tensor: call to_dense()")
            if t.dtype not in _REAL:
                raise RuntimeError(f"{op}: tensors[{i}] is {t.dtype}; expected one of {', '.join(map(str, _REAL))}")
            _refuse_grad(op, f"tensors[{i}]", t)


def _refuse_grad(op: str, name: str, tensor: Tensor) -> None:
    if tensor.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            f"{op} does not support automatic differentiation, but {name} requires grad; call it under torch.no_grad()"
        )


def _has_memory(tensor: Tensor) -> bool:
    """Whether it lies where others could lie too: a tensor of torch_xla is a value, with 0 for its address."""
    return tensor.device.type != "xla"


def _refuse_shared_memory(op: str, tensors: Sequence[Tensor], flat: Tensor, written: bool) -> None:
    if not _has_memory(flat):
        return
    if unavailable("cpu") is None:
        from accelops.kernels.bucket.native import layout
    else:  # as on a machine with a GPU and without a C++ compiler
        from accelops.kernels.bucket.layout import layout

    found, where = layout(tensors), addresses(tensors)
    i = found.entangled(where, flat.data_ptr(), flat.nbytes, _WIRES[flat.dtype])
    if i >= 0:
        raise RuntimeError(f"{op}: tensors[{i}] overlaps flat other than at its own place there; clone() it")
    if not written:
        return
    i, j = found.overlap(where)
    if i >= 0:
        which = f"of tensors[{i}]" if i == j else f"of tensors[{i}] and tensors[{j}]"
        raise RuntimeError(
            f"{op}: more than one element {which} refers to a single memory location; clone() the tensor first"
        )


def _fake_pack(
    tensors: list[Tensor], flat: Tensor, scale: float = 1.0, residual: Tensor | None = None, target: str | None = None
) -> None:
    check_pack(tensors, flat, residual)


def _fake_unpack(flat: Tensor, tensors: list[Tensor], scale: float = 1.0, target: str | None = None) -> None:
    check_unpack(flat, tensors)


def _fake_reduce(flats: list[Tensor], out: Tensor, scale: float = 1.0, target: str | None = None) -> None:
    check_reduce(flats, out)


_SCHEMAS = {
    "bucket_pack_": "(Tensor[] tensors, Tensor(a!) flat, float scale=1.0, Tensor(b!)? residual=None, str? target=None)",
    "bucket_unpack_": "(Tensor flat, Tensor(a!)[] tensors, float scale=1.0, str? target=None)",
    "bucket_reduce_": "(Tensor[] flats, Tensor(a!) out, float scale=1.0, str? target=None)",
}
_KERNELS = {
    "bucket_pack_": (_pack, _fake_pack),
    "bucket_unpack_": (_unpack, _fake_unpack),
    "bucket_reduce_": (_reduce, _fake_reduce),
}
for _name, (_kernel, _fake) in _KERNELS.items():
    _library.define(f"{_name}{_SCHEMAS[_name]} -> ()", tags=_TAGS)
    _library.impl(_name, _kernel, "CompositeExplicitAutograd")
    # Above functionalization, which torch_xla always has, and which refuses an op that writes its arguments.
    _library.impl(_name, _kernel, "AutogradXLA")
    torch.library.register_fake(f"accelops::{_name}", _fake, lib=_library)
