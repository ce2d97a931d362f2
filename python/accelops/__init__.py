"""accelops: convolution, Adam and all-reduce bucketing, fast on whatever hardware is there, behind PyTorch's own interface."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from accelops.dispatch.explain import explain
from accelops.dispatch.reroute import disable, enable, enabled
from accelops.dispatch.select import use
from accelops.dispatch.tune import tune
from accelops.targets import TargetUnavailable
from accelops.targets.cpu.memory import keep_memory

__all__ = ["TargetUnavailable", "disable", "enable", "enabled", "explain", "keep_memory", "tune", "use"]
_FACES = ("data", "deploy", "distributed", "functional", "nn", "optim")


def __getattr__(name: str) -> Any:
    """The faces are imported when they are first used: `accelops.nn`, `accelops.optim` and the others."""
    if name in _FACES:
        return import_module(f"accelops.{name}")
    raise AttributeError(f"module 'accelops' has no attribute {name!r}")
