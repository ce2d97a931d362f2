"""Runs a suite: ceilings first, then each Job in turn, with memory kept for both sides alike; gives a Result."""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from accelops.dispatch.tuned import device_name
from accelops.information import versions
from accelops.targets.cpu.memory import keep_memory

from . import roofline, suites
from .roofline import Ceilings
from .rows import Job, Row, Setting

SUITES = ("adam", "bucket", "fused", "overhead", "steps", *suites.NETWORKS)
SECONDS = 1.0  # a Row, by default
ON_THE_CPU = Setting()
PACKAGES = ("accelops", "numpy", "triton", "deepspeed", "transformers")  # beside Python and torch


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
    setting: Setting = ON_THE_CPU,
    match: str = "",
    ceilings: Ceilings | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Result:
    """Measure the Jobs of `suite` whose names contain `match`, about `seconds` each, against `ceilings` (measured
    first where they are not given).

    On a GPU torch picks its algorithms by measurement (cudnn.benchmark), on both sides. Raises ValueError for an unknown
    suite or a `match` that fits none, ModuleNotFoundError for a package that the suite needs.
    """
    jobs, notes = _jobs(suite, setting)
    chosen = [job for job in jobs if match in job.name]
    if not chosen:
        raise ValueError(f"match={match!r} fits none of: {', '.join(job.name for job in jobs)}")
    with _best_form_of_torch(setting.device, notes):
        if ceilings is None:
            progress(0, len(chosen), "the machine's ceilings")
            ceilings = roofline.measure(setting.device)
        rows = []
        for done, job in enumerate(chosen):
            progress(done, len(chosen), job.name)
            rows.append(job.measure(ceilings, seconds))
        progress(len(chosen), len(chosen), "")
    return Result(suite, evidence(setting.device), ceilings, tuple(rows), tuple(notes))


@contextmanager
def _best_form_of_torch(device: str, notes: list[str]) -> Iterator[None]:
    """What a script can switch on for all of torch, in force for both sides, and noted."""
    if device == "cuda":
        notes.append("cudnn.benchmark is on, for both sides")
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before
        return
    kept = keep_memory(True)
    notes.append(f"memory {'is kept in the process' if kept else 'goes back to the system'}, for both sides")
    try:
        yield
    finally:
        keep_memory(False)


def _jobs(suite: str, setting: Setting) -> tuple[list[Job], list[str]]:
    from . import adam, bucket, conv, fused, overhead, steps

    if suite in suites.NETWORKS:
        return conv.jobs(suite, setting), []
    if suite == "adam":
        missing = adam.missing_peer() if setting.device == "cpu" else None
        return adam.jobs(setting), [missing] if missing else []
    if suite == "bucket":
        return bucket.jobs(setting), []
    if suite == "fused":
        return fused.jobs(setting), []
    if suite == "overhead":
        return overhead.jobs(setting), []
    if suite == "steps":
        return steps.jobs(setting), []
    raise ValueError(f"suite={suite!r} is unknown; choose one of {', '.join(SUITES)}")


def evidence(device: str = "cpu") -> dict[str, Any]:
    """What stands behind figures that are measured now, here."""
    return {
        "kind": "measured",
        "device": device_name(device),
        "versions": versions(*PACKAGES),
        "date": datetime.date.today().isoformat(),
        "command": " ".join([_program(Path(sys.argv[0])), *sys.argv[1:]]),
        "threads": torch.get_num_threads(),
    }


def _program(path: Path) -> str:
    return "accelops" if path.name == "__main__.py" else path.name
