"""What `accelops info` tells: versions, targets and how to get those that are missing, the CPU, tables, evidence."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from accelops.dispatch import tuned
from accelops.dispatch.evidence import matrix
from accelops.dispatch.select import OPS, candidates
from accelops.targets import TARGETS, unavailable
from accelops.targets.cpu import device_name, native


def information() -> dict[str, Any]:
    """Plain values, for JSON."""
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return {
        "versions": versions("accelops", "numpy", "jax", "libtpu", "torch_xla", "torch_tpu"),
        "cpu": {
            "device": device_name(),
            "instruction_set": native.isa() if native is not None else "none: the native extension is missing",
            "threads": torch.get_num_threads(),
        },
        "targets": {target: unavailable(target) or "yes" for target in TARGETS},
        "candidates": {op: list(candidates(op)) for op in OPS},
        "gpu": tuned.device_name("cuda") if "cuda" in devices else "none that torch sees",
        "tables": {
            op: {f"{s}, {d}": str(tuned.path(op, d, s)) for d in devices for s in ("tuned", "shipped")} for op in OPS
        },
        "evidence": [piece.to_dict() for piece in matrix()],
    }


def versions(*packages: str) -> dict[str, str]:
    """Of Python, torch, and those of `packages` that are installed."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # an extra or a peer that is not here, or accelops run from its source tree
            continue
    return found
