"""Bucketing the gradients of ResNet-50: pack, unpack and reduce, by torch's means and by accelops.

torch as called: what data-parallel code does, concatenate, scale, cast, and copy back one by one (torch._utils). torch's
best: the same by foreach copies into views of the buffer (kernels/bucket/aten.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from accelops.dispatch import bucket as _ops  # noqa: F401  # defines torch.ops.accelops.bucket_*
from accelops.kernels.bucket import aten
from accelops.kernels.bucket.spec import BucketSpec
from accelops.timing import Variant, interleaved

from .roofline import Ceilings
from .rows import Job, Row, Setting, ran, row, selections_of
from .suites import resnet50_parameters

SCALE = 0.125
Operands = tuple[Any, ...]


def specs() -> list[tuple[str, BucketSpec]]:
    shapes = resnet50_parameters()
    numel = sum(torch.Size(shape).numel() for shape in shapes)
    n = len(shapes)
    return [
        ("fp32", BucketSpec("pack", numel, n)),
        ("bf16 wire", BucketSpec("pack", numel, n, wire_dtype="bfloat16")),
        ("bf16 wire, error feedback", BucketSpec("pack", numel, n, wire_dtype="bfloat16", error_feedback=True)),
        ("fp32", BucketSpec("unpack", numel, n)),
        ("bf16 wire", BucketSpec("unpack", numel, n, wire_dtype="bfloat16")),
        ("2 ranks, fp32", BucketSpec("reduce", numel, ranks=2)),
        ("4 ranks, bf16 wire", BucketSpec("reduce", numel, wire_dtype="bfloat16", ranks=4)),
    ]


def jobs(setting: Setting) -> list[Job]:
    def job(name: str, spec: BucketSpec) -> Job:
        return Job(f"{name} {spec.direction}", lambda ceilings, s: _measure(name, spec, setting, ceilings, s))

    return [job(name, replace(spec, device=setting.device)) for name, spec in specs()]


def _measure(name: str, spec: BucketSpec, setting: Setting, ceilings: Ceilings, seconds: float) -> Row:
    operands = _operands(spec)
    torchs = {"pack": _torch_pack, "unpack": _torch_unpack, "reduce": _torch_reduce}[spec.direction]
    ours = getattr(torch.ops.accelops, f"bucket_{spec.direction}_")
    variants = {
        "torch": Variant(lambda: torchs(*operands)),
        "torch foreach": Variant(lambda: aten.run(aten.Config(), spec, *operands)),
        "accelops": Variant(lambda: ours(*operands, target=setting.target)),
    }
    selections = selections_of(variants["accelops"])
    return row(
        name,
        spec.direction,
        interleaved(variants, seconds, setting.device),
        ran("accelops", selections),
        spec,
        ceilings,
    )


def _operands(spec: BucketSpec) -> Operands:
    """As the op takes them."""
    generator = torch.Generator(spec.device).manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=spec.device)

    wire = getattr(torch, spec.wire_dtype)
    if spec.direction == "reduce":
        flats = [random(spec.numel).to(wire) for _ in range(spec.ranks)]
        return flats, torch.empty(spec.numel, device=spec.device), SCALE
    tensors = [random(*shape) for shape in resnet50_parameters()]
    flat = random(spec.numel).to(wire)
    if spec.direction == "unpack":
        return flat, tensors, SCALE
    return tensors, flat, SCALE, torch.zeros(spec.numel, device=spec.device) if spec.error_feedback else None


def _torch_pack(tensors: list[Tensor], flat: Tensor, scale: float, residual: Tensor | None) -> None:
    exact = _flatten_dense_tensors(tensors).mul_(scale)
    if residual is not None:
        exact += residual
    flat.copy_(exact)
    if residual is not None:
        torch.sub(exact, flat, out=residual)


def _torch_unpack(flat: Tensor, tensors: list[Tensor], scale: float) -> None:
    for tensor, part in zip(tensors, _unflatten_dense_tensors(flat.float() * scale, tensors), strict=True):
        tensor.copy_(part)


def _torch_reduce(flats: list[Tensor], out: Tensor, scale: float) -> None:
    torch.sum(torch.stack(flats), 0, dtype=torch.float32, out=out).mul_(scale)
