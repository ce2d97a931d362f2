"""The targets by name, and whether each can be used here: one module a target, imported on first need.

A target's module offers `unavailable() -> str | None`: None where it is ready, else what is missing and how to get it;
and, where it can be ready without its hardware, `emulated() -> bool`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

TARGETS = ("reference", "cpu", "triton", "xla", "fpga", "aten")

# torch's device types whose tensors a target may take: torch_xla's tensors are on "xla", those of torch_tpu on "tpu".
DEVICE_TYPES = ("cpu", "cuda", "xla", "tpu")


class TargetUnavailable(RuntimeError):
    """A target was asked for by name and cannot serve; the message says why and what to do."""


class KernelFailed(RuntimeError):
    """A kernel did not compile or could not be launched; nothing was written. Dispatch sets its Config aside."""


@cache
def unavailable(target: str) -> str | None:
    """None if `target` is ready here, else why not. Raises TargetUnavailable for a name that is no target."""
    if target not in TARGETS:
        raise TargetUnavailable(f"target={target!r} is no target of accelops; choose one of {', '.join(TARGETS)}")
    if target == "aten":
        return None
    if find_spec(f"accelops.targets.{_room(target)}") is None:
        return f"this version of accelops has no {target} target"
    return import_module(f"accelops.targets.{_room(target)}").unavailable()


def emulated(target: str) -> bool:
    """Whether a target that is ready runs without its hardware here: right results, and no speed to choose it for."""
    if target == "aten":
        return False
    module = import_module(f"accelops.targets.{_room(target)}")
    return hasattr(module, "emulated") and module.emulated()


def _room(target: str) -> str:
    return "cpu" if target == "reference" else target  # both run in the native extension
