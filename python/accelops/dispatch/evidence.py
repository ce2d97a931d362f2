"""What stands behind each (op, target): measured on a device, compiled by the vendor's compiler, simulated, or a reference.

kernels/<op>/evidence.json holds, per target, the newest of each kind, as benchmarks/record.py writes it from a result file.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelops.kernels
from accelops.targets import unavailable

from .select import OPS, candidates

KINDS = ("measured", "compiled", "simulated", "reference")


@dataclass(frozen=True)
class Evidence:
    """One piece: `kind` is one of KINDS, or "none" where an implementation has nothing to show yet. `ready` says whether
    the target can be used on this machine, in words where it cannot."""

    op: str
    target: str
    kind: str
    ready: str
    device: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict, hash=False)
    date: str = ""
    command: str = ""
    result: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def matrix() -> list[Evidence]:
    """Every implementation that is installed, with its evidence; torch's own kernels are nobody's claim and stay out."""
    rows = []
    for op in OPS:
        file = Path(accelops.kernels.__path__[0]) / op / "evidence.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        for target in candidates(op):
            if target == "aten":
                continue
            ready = unavailable(target) or "yes"
            kinds = known.get(target) or [{"kind": "reference" if target == "reference" else "none"}]
            rows += [Evidence(op=op, target=target, ready=ready, **piece) for piece in kinds]
    return rows
