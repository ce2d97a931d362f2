"""Result: the rows of one run of `accelops tpu aot`, and what stands behind them."""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accelops.information import versions

from . import NOT_MEASURED
from .cases import Case
from .chips import chips
from .configs import chosen
from .process import DEADLINE, check_installed
from .rows import Progress, Row, rows


@dataclass(frozen=True)
class Result:
    """Of some cases on some chips. `evidence` is of the kind "compiled"."""

    evidence: dict[str, Any]
    rows: list[Row]

    def geometric_means(self) -> dict[str, dict[str, float]]:
        """Of ratio_vs_stock by chip and direction, weighted by multiplicity, over the rows that have one."""
        means: dict[str, dict[str, float]] = {}
        for chip, direction in dict.fromkeys((row.chip, row.direction or row.op) for row in self.rows):
            found = [row for row in self.rows if row.chip == chip and (row.direction or row.op) == direction]
            logs = [(row.multiplicity, math.log(row.ratio_vs_stock)) for row in found if row.ratio_vs_stock]
            if logs:
                weight = sum(multiplicity for multiplicity, _ in logs)
                means.setdefault(chip, {})[direction] = math.exp(sum(m * log for m, log in logs) / weight)
        return means

    def to_dict(self) -> dict[str, Any]:
        return {
            "note": NOT_MEASURED,
            "evidence": self.evidence,
            "geometric_means_vs_stock": self.geometric_means(),
            "rows": [row.to_dict() for row in self.rows],
        }


def run(
    cases: Sequence[Case],
    names: str,
    baseline: bool = True,
    deadline: float = DEADLINE,
    progress: Progress = lambda done, total, name: None,
) -> Result:
    """`names` of chips, with commas between. Raises ValueError for one that is unknown, TargetUnavailable without jax or
    libtpu."""
    generations = chips(names)
    check_installed()
    found = list(rows(cases, generations, chosen, baseline, deadline, progress))
    return Result(evidence(", ".join(chip.name for chip in generations)), found)


def evidence(device: str) -> dict[str, Any]:
    """Of what was compiled just now, by this command."""
    return {
        "kind": "compiled",
        "device": device,
        "versions": versions("accelops", "jax", "jaxlib", "libtpu"),
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["accelops", *sys.argv[1:]]),
    }
