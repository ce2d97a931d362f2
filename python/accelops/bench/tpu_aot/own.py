"""What libtpu is handed for accelops' own implementations: the functions of kernels/<op>/xla, as the bridges hand them over.

One builder an op, for a Config as accelops.dispatch.tuned.describe writes it.
"""

from __future__ import annotations

from typing import Any

from jax.sharding import Mesh

from accelops.dispatch.tuned import describe
from accelops.kernels.conv.spec import ConvSpec

from .launch import Launch


def conv(spec: ConvSpec, mesh: Mesh, config: dict[str, Any]) -> tuple[Launch]:
    from accelops.kernels.conv.xla import lowering

    found = next(c for c in lowering.configs(spec) if describe(c) == config)
    return (Launch(lowering.lowered(found, spec), lowering.operands(spec)),)
