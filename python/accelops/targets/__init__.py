"""The targets by name, and whether each can be used here: one module a target, imported on first need.

A target's module offers `unavailable() -> str | None`: None where it is ready, else what is missing and how to get it;
and, where it can be ready without its hardware, `emulated() -> bool`. What it answers is kept, unless it says
COMES_AND_GOES: then it is asked anew each time, and whoever keeps what follows from the answer registers with `follow`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

TARGETS = ("reference", "cpu", "triton", "xla", "fpga", "aten")

# torch's device types whose tensors a target may take: torch_xla's tensors are on "xla", those of torch_tpu on "tpu".
DEVICE_TYPES = ("cpu", "cuda", "xla", "tpu")


class TargetUnavailable(RuntimeError):
    """A target was asked for by name and cannot serve; the message says why and what to do."""


class KernelFailed(RuntimeError):
    """A kernel did not compile or could not be launched; nothing was written. Dispatch sets its Config aside."""


def unavailable(target: str) -> str | None:
    """None if `target` is ready here, else why not. Raises TargetUnavailable for a name that is no target."""
    if target not in TARGETS:
        raise TargetUnavailable(f"target={target!r} is no target of accelops; choose one of {', '.join(TARGETS)}")
    module = _module(target)
    if not hasattr(module, "COMES_AND_GOES"):
        return _settled(target)
    missing = module.unavailable()
    answer = (missing, missing is None and module.emulated())
    if _answered.setdefault(target, answer) != answer:
        _answered[target] = answer
        for changed in _followers:
            changed()
    return missing


@cache
def _settled(target: str) -> str | None:
    if target == "aten":
        return None
    module = _module(target)
    return f"this version of accelops has no {target} target" if module is None else module.unavailable()


@cache
def _module(target: str) -> ModuleType | None:
    name = f"accelops.targets.{_room(target)}"
    return import_module(name) if find_spec(name) is not None else None


_answered: dict[str, tuple[str | None, bool]] = {}  # by those that come and go: what is missing; whether emulated
_followers: list[Callable[[], None]] = []


def follow(changed: Callable[[], None]) -> None:
    """Have `changed` called whenever `unavailable` finds that a target came or went."""
    _followers.append(changed)


def emulated(target: str) -> bool:
    """Whether a target that is ready runs without its hardware here: right results, and no speed to choose it for."""
    module = _module(target)
    return hasattr(module, "emulated") and module.emulated()


def _room(target: str) -> str:
    return "cpu" if target == "reference" else target  # both run in the native extension
