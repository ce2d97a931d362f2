"""Convolution on the CPU in SIMD C++ (the .cpp files beside this one): the families depthwise, grouped and pointwise.

Each family is a module with a Config, whose fields in order are the numbers its C++ kernel is given, and with
`unsupported`, `configs` and `heuristic`; the first family that supports a Spec serves it best, so it is asked first.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from types import ModuleType
from typing import Any

from accelops import _native

from .. import native
from ..families import refusals
from ..spec import ConvSpec
from . import depthwise, grouped, pointwise

FAMILIES: dict[str, ModuleType] = {"depthwise": depthwise, "grouped": grouped, "pointwise": pointwise}
Config = depthwise.Config | grouped.Config | pointwise.Config


def unsupported(spec: ConvSpec) -> list[str]:
    """Why no family serves `spec`: each family's reasons, led by its name; empty if one does."""
    return refusals(FAMILIES, spec)


def configs(spec: ConvSpec) -> list[Config]:
    """The Configs of every family that supports `spec`."""
    return [config for family in FAMILIES.values() if not family.unsupported(spec) for config in family.configs(spec)]


def heuristic(spec: ConvSpec) -> tuple[Config | None, str]:
    """The Config that beats torch on `spec`, or None, and why."""
    reasons: list[str] = []
    for name, family in FAMILIES.items():
        if family.unsupported(spec):
            continue
        config, why = family.heuristic(spec)
        if config is not None:
            return config, f"{name}: {why}"
        reasons.append(f"{name}: {why}")
    return None, "; ".join(reasons or unsupported(spec))


@lru_cache(maxsize=4096)
def plan(config: Config, spec: ConvSpec) -> _native.ConvPlan:
    """The kernel of the Config's family bound to `spec`."""
    family = next(name for name, module in FAMILIES.items() if isinstance(config, module.Config))
    return native.plan(spec, family, dataclasses.astuple(config))


def run(config: Config, spec: ConvSpec, *operands: Any, **options: Any) -> Any:
    """See native.run."""
    return native.run(plan(config, spec), spec, *operands, **options)
