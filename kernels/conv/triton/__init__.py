"""Convolution on the GPU in Triton: the families of this folder, each a module with a Config, `unsupported`, `configs` and
`run`; the first family that supports a Spec is meant to serve it best, so it is asked first.

Operands are dense in spec.memory_format and are read and written as they lie: nothing is transposed on the way.
"""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

from accelops.targets import triton as gpu
from accelops.targets.triton_replay import Replay

from ..families import refusals
from ..spec import ConvSpec
from . import boxes, dense, depthwise, grouped, pointwise, stem
from .gemm import precision

FAMILIES: dict[str, ModuleType] = {
    "depthwise": depthwise,
    "grouped": grouped,
    "pointwise": pointwise,
    "stem": stem,
    "boxes": boxes,
    "dense": dense,
}
DTYPES = ("float32", "bfloat16", "float16")


def unsupported(spec: ConvSpec) -> list[str]:
    """Why no family serves `spec`: each family's reasons, led by its name; empty if one does."""
    if spec.device not in gpu.devices():
        return [f"runs on {gpu.devices()[0]} tensors, not on {spec.device}"]
    if spec.dtype not in DTYPES:
        return [f"dtype {spec.dtype}: only {', '.join(DTYPES)}"]
    return refusals(FAMILIES, spec)


def configs(spec: ConvSpec) -> list[Any]:
    """Those of the first family that supports `spec`, and the first of each other that does: to be tuned in bearable time."""
    first, *others = [family.configs(spec) for family in FAMILIES.values() if not family.unsupported(spec)]
    return [*first, *(configs[0] for configs in others)]


def heuristic(spec: ConvSpec) -> tuple[None, str]:
    return None, "no GPU has measured it yet; accelops.tune measures it on this one"


def run(config: Any, spec: ConvSpec, *operands: Any, **options: Any) -> Any:
    """Run one direction; operands and results as in kernels/conv/native.py: run."""
    family = next(module for module in FAMILIES.values() if isinstance(config, module.Config))
    return family.run(config, spec, *operands, **options)


def bind(config: Any, spec: ConvSpec) -> Replay:
    """`run` for a Config and a Spec that meet again and again; the precision of fp32 products is torch's at each call."""
    return Replay(partial(run, config, spec), partial(precision, spec))
