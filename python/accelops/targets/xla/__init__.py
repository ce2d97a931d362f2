"""TPUs: which way from torch onto one is installed here, and programs in JAX that run there.

    torch_xla   tensors on "xla"   bridge_torch_xla.py
    torch_tpu   tensors on "tpu"   bridge_torch_tpu.py
    jax alone   tensors on "cpu"   bridge_cpu.py: no TPU, right results, no speed

The first two cannot share an environment; each wants versions of its own, which EXTRAS names. Where torch_tpu finds no TPU,
jax alone serves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import torch

# Of jax, for each way onto a TPU: oldest and first too new. torch_xla's TPU runtime rejects what later ones write.
JAX = {"torch_xla": ((0, 7, 1), (0, 9)), "torch_tpu": ((0, 10, 2), (0, 11)), "": ((0, 10, 2), (0, 11))}
EXTRAS = {"torch_xla": "accelops[torch-xla]", "torch_tpu": "accelops[torch-tpu]", "": "accelops[tpu]"}
CHIPS = {  # by what the runtimes call them
    **dict.fromkeys(("TPU v4", "v4"), "v4"),
    **dict.fromkeys(("TPU v5 lite", "TPU v5e", "v5litepod"), "v5e"),
    **dict.fromkeys(("TPU v5", "TPU v5p", "v5p"), "v5p"),
    **dict.fromkeys(("TPU v6 lite", "TPU v6e", "v6e"), "v6e"),
    **dict.fromkeys(("TPU7x", "tpu7x", "v7x"), "v7x"),
}
DEVICES = {"torch_xla": "xla", "torch_tpu": "tpu", "": "cpu"}


def unavailable() -> str | None:
    ways = [way for way in ("torch_xla", "torch_tpu") if installed(way)]
    if len(ways) > 1:
        return "torch_xla and torch_tpu are both installed, and cannot share an environment: pip uninstall one of them"
    way = ways[0] if ways else ""
    found = installed("jax")
    if found is None:
        return f"jax is not installed: pip install '{EXTRAS[way]}'"
    oldest, newer = JAX[way]
    if not oldest <= _numbers(found) < newer:
        wanted = f">={'.'.join(map(str, oldest))},<{'.'.join(map(str, newer))}"
        return f"jax {found} does not go with {way or 'these kernels'}: pip install 'jax{wanted}', or '{EXTRAS[way]}'"
    return None


def installed(package: str) -> str | None:
    """Its version, without an import."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


@cache
def way() -> str:
    """torch_xla, torch_tpu, or "" for jax alone."""
    return next((package for package in ("torch_xla", "torch_tpu") if installed(package)), "")


@cache
def device() -> str:
    """The torch device type on which programs run."""
    # torch loads torch_tpu by itself, which gives its device a name only where it finds a TPU.
    if way() == "torch_tpu" and torch._C._get_privateuse1_backend_name() != "tpu":
        return "cpu"
    return DEVICES[way()]


def emulated() -> bool:
    """Whether programs run without a TPU. Dispatch asks this for tensors of any device, so it imports neither jax nor a
    torch_xla that nobody has imported: where there are no tensors of its own, those of the CPU are what is asked about."""
    if device() == "cpu" or way() not in sys.modules:
        return True
    return bridge(device()).emulated()


def devices() -> tuple[str, ...]:
    """The torch device types whose tensors programs take; those on the CPU are jax's, whatever else there is."""
    return ("cpu",) if device() == "cpu" else (device(), "cpu")


@cache
def bridge(device: str) -> ModuleType:
    """The module that runs programs on tensors of a device type."""
    names = {"xla": "bridge_torch_xla", "tpu": "bridge_torch_tpu", "cpu": "bridge_cpu"}
    return import_module(f"accelops.targets.xla.{names[device]}")


def program(device: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, of nested tuples, lists and dictionaries of arrays, as one of such of tensors on a device type. It is
    compiled once for each set of shapes and dtypes; results are new tensors."""
    return bridge(device).program(function)


def precision(device: str) -> str | None:
    """Of fp32 products on the matrix unit, as torch was told; None is the device's own."""
    return bridge(device).precision()


def interprets(device: str) -> Any:
    """What Pallas kernels are told of their interpretation: False on a TPU."""
    return bridge(device).emulated()


@cache
def chip(device: str) -> str | None:
    """The TPU on which programs of a device type run, as tables name it ("v5e"); None where there is none that they know."""
    return CHIPS.get(bridge(device).kind())
