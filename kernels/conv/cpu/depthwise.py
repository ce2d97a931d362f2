"""The depthwise family: which Specs depthwise.cpp serves, with which tiles, and where it was measured faster than torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import ConvSpec


@dataclass(frozen=True)
class Config:
    """What the kernel may choose."""


def unsupported(spec: ConvSpec) -> list[str]:
    return ["not written yet"]


def configs(spec: ConvSpec) -> list[Config]:
    return [Config()]


def heuristic(spec: ConvSpec) -> tuple[Config | None, str]:
    return None, "not measured yet"
