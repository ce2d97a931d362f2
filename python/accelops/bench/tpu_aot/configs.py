"""The Config of a case that a chip would run: the one that its table names, otherwise the implementation's first."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from accelops.dispatch.tuned import describe
from accelops.kernels.conv.spec import ConvSpec

from .cases import Case
from .chips import Chip


def chosen(case: Case, chip: Chip) -> dict[str, Any]:
    if isinstance(case.spec, ConvSpec):
        from accelops.kernels.conv.xla import table

        entry = table.lookup(case.spec, chip.name)
        if entry is not None:
            return entry.config
    return every(case)[0]


def every(case: Case) -> list[dict[str, Any]]:
    """All that the implementation offers, described."""
    spec = case.spec
    offers = import_module(f"accelops.kernels.{spec.op}.xla" + (".lowering" if spec.op == "conv" else ""))
    return [describe(config) for config in offers.configs(spec)]
