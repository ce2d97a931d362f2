"""What a target whose convolutions come in families says of a Spec that none of them serves."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from .spec import ConvSpec


def refusals(families: Mapping[str, ModuleType], spec: ConvSpec) -> list[str]:
    """Each family's reasons, led by its name; empty if one of them serves."""
    reasons: list[str] = []
    for name, family in families.items():
        found = family.unsupported(spec)
        if not found:
            return []
        reasons += [f"{name}: {reason}" for reason in found]
    return reasons
