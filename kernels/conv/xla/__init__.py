"""Convolution on TPUs: lowered by JAX (lowering.py), run by way of torch_xla or torch_tpu, or by jax itself on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from torch import Tensor

from accelops.targets import xla

from ..spec import ConvSpec
from . import lowering, table
from .lowering import Config
from .mode import Mode

DTYPES = ("float32", "bfloat16", "float16")


def unsupported(spec: ConvSpec) -> list[str]:
    reasons = []
    if spec.device not in xla.devices():
        reasons.append(f"runs on {xla.devices()[0]} tensors, not on {spec.device}")
    if spec.dtype not in DTYPES:
        reasons.append(f"dtype {spec.dtype}: only {', '.join(DTYPES)}")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """The first is the one to take unmeasured: what the compiler estimates to be the fastest on the chip that is here, if
    its table knows the problem, else XLA's own."""
    found = lowering.configs(spec)
    chip = xla.chip(spec.device)
    entry = table.lookup(spec, chip) if chip else None
    if entry is not None:
        found.sort(key=lambda config: not asdict(config).items() <= entry.config.items())
    return found


def heuristic(spec: ConvSpec) -> tuple[None, str]:
    return None, "no TPU has measured it yet; accelops.tune measures it on this one"


def run(
    config: Config, spec: ConvSpec, first: Tensor, second: Tensor, third: Tensor | None = None, save: bool = False
) -> Any:
    """Run one direction; operands and results as in kernels/conv/native.py: run."""
    given = (None if t is None else _as_in_memory(spec, t) for t in (first, second, third))
    results = _program(config, spec, save, xla.precision(spec.device))(*given)
    made = tuple(None if r is None else _as_in_torch(spec, r) for r in results)
    return made[0] if spec.direction == "dgrad" else made


@lru_cache(maxsize=4096)
def _program(config: Config, spec: ConvSpec, save: bool, precision: str | None) -> Callable[..., tuple[Any, ...]]:
    mode = Mode(precision, interpret=xla.interprets(spec.device))
    return xla.program(spec.device, lowering.lowered(config, spec, save, mode))


def _as_in_memory(spec: ConvSpec, tensor: Tensor) -> Tensor:
    return tensor.movedim(1, -1) if spec.memory_format == "channels_last" and tensor.dim() > 1 else tensor


def _as_in_torch(spec: ConvSpec, tensor: Tensor) -> Tensor:
    return tensor.movedim(-1, 1) if spec.memory_format == "channels_last" and tensor.dim() > 1 else tensor
