"""How a lowering is to compute, whatever the problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mode:
    """`precision` is that of fp32 products on the matrix unit, a name of jax.lax.Precision, or None for jax's own choice.
    `interpret` runs Pallas kernels where there is no TPU: True, or pltpu.InterpretParams, which finds races too."""

    precision: str | None = None
    interpret: Any = False
