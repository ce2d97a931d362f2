"""Runs a suite: ceilings first, then each Job in turn, with memory kept for both sides alike; gives a Result."""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from accelops.dispatch.tuned import device_name
from accelops.information import versions
from accelops.targets.cpu.memory import keep_memory

from . import roofline, suites
from .roofline import Ceilings
from .rows import Job, Row

SUITES = ("adam", "bucket", "overhead", "steps", *suites.NETWORKS)
SECONDS = 1.0  # a Row, by default
PACKAGES = ("accelops", "numpy", "deepspeed", "transformers")  # beside Python and torch


@dataclass(frozen=True)
class Result:
    """What a suite measured, and what stands behind it."""

    suite: str
    evidence: dict[str, Any]
    ceilings: Ceilings
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def geometric_means(self) -> dict[str, dict[str, float]]:
        """Of both ratios: weighted by multiplicity, and unweighted; `total` compares the sums of multiplicity * time."""
        return {name: self._means(name) for name in ("ratio_vs_torch", "ratio_vs_torch_best")}

    def _means(self, name: str) -> dict[str, float]:
        ratios = [getattr(row, name) for row in self.rows]
        weights = [row.multiplicity for row in self.rows]
        called = name == "ratio_vs_torch"
        torchs, ours = (
            sum(
                w * row.milliseconds[side if called else row.best[side]]
                for w, row in zip(weights, self.rows, strict=True)
            )
            for side in ("torch", "accelops")
        )
        return {
            "unweighted": geometric_mean(ratios, [1] * len(ratios)),
            "weighted": geometric_mean(ratios, weights),
            "total": torchs / ours,
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "evidence": self.evidence,
            "ceilings": {"copy_bytes_per_second": self.ceilings.copy, "matrix_flops_per_second": self.ceilings.peak},
            "rows": [row.to_dict() for row in self.rows],
            "losses": [f"{row.name} {row.direction}" for row in self.rows if row.loss],
            "geometric_means": self.geometric_means(),
            "notes": list(self.notes),
        }


def geometric_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return math.exp(sum(w * math.log(v) for v, w in zip(values, weights, strict=True)) / sum(weights))


def run(
    suite: str,
    seconds: float = SECONDS,
    batch: int | None = None,
    target: str | None = None,
    match: str = "",
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Result:
    """Measure the Jobs of `suite` whose names contain `match`, about `seconds` each.

    `batch` replaces the usual batch of conv suites and steps; `target` asks for one by name where it supports the
    problem. Raises ValueError for an unknown suite or a `match` that fits none, ModuleNotFoundError for a package that
    the suite needs.
    """
    jobs, notes = _jobs(suite, batch, target)
    chosen = [job for job in jobs if match in job.name]
    if not chosen:
        raise ValueError(f"match={match!r} fits none of: {', '.join(job.name for job in jobs)}")
    kept = keep_memory(True)
    notes += [
        "memory is kept in the process, for both sides" if kept else "memory goes back to the system, for both sides"
    ]
    try:
        progress(0, len(chosen), "the machine's ceilings")
        ceilings = roofline.measure()
        rows = []
        for done, job in enumerate(chosen):
            progress(done, len(chosen), job.name)
            rows.append(job.measure(ceilings, seconds))
        progress(len(chosen), len(chosen), "")
    finally:
        keep_memory(False)
    return Result(suite, evidence(), ceilings, tuple(rows), tuple(notes))


def _jobs(suite: str, batch: int | None, target: str | None) -> tuple[list[Job], list[str]]:
    from . import adam, bucket, conv, overhead, steps

    if suite in suites.NETWORKS:
        return conv.jobs(suite, batch, target), []
    if suite == "adam":
        return adam.jobs(target), [note for note in [adam.missing_peer()] if note]
    if suite == "bucket":
        return bucket.jobs(target), []
    if suite == "overhead":
        return overhead.jobs(), []
    if suite == "steps":
        return steps.jobs(batch), []
    raise ValueError(f"suite={suite!r} is unknown; choose one of {', '.join(SUITES)}")


def evidence() -> dict[str, Any]:
    """What stands behind figures that are measured now, here."""
    return {
        "kind": "measured",
        "device": device_name("cpu"),
        "versions": versions(*PACKAGES),
        "date": datetime.date.today().isoformat(),
        "command": " ".join([_program(Path(sys.argv[0])), *sys.argv[1:]]),
        "threads": torch.get_num_threads(),
    }


def _program(path: Path) -> str:
    return "accelops" if path.name == "__main__.py" else path.name
