"""Tuning without a TPU: for each grouped convolution of some cases the Config of least estimate, and the tables of them.

Only what HLO cycles cover is ranked. Pallas kernels are not: no estimator covers them and XLA's own convolution both.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelops.kernels.conv.spec import ConvSpec
from accelops.kernels.conv.xla import table

from . import NOT_MEASURED
from .cases import Case
from .chips import Chip, chips
from .configs import every
from .estimate import Estimate, comparable
from .process import DEADLINE, CompilerFailed, Request, check_installed
from .result import evidence
from .rows import OURS, STOCK, Laboratory, Progress


@dataclasses.dataclass(frozen=True)
class Choice:
    """For `spec` on `chip`: `config` is estimated at `ratio` times the speed of the stock lowering. `estimates_us` has all
    that were compared, by Config."""

    chip: str
    name: str
    spec: ConvSpec
    config: dict[str, Any]
    ratio: float
    estimates_us: dict[str, float]

    @property
    def direction(self) -> str:
        return self.spec.direction

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"evidence": "compiled", "note": NOT_MEASURED}


def tune(
    cases: Sequence[Case],
    names: str,
    deadline: float = DEADLINE,
    progress: Progress = lambda done, total, name: None,
) -> list[Choice]:
    """Of the cases that leave a choice. Raises ValueError for an unknown chip and where no case leaves a choice,
    TargetUnavailable without jax or libtpu."""
    generations = chips(names)
    check_installed()
    grouped = [case for case in cases if isinstance(case.spec, ConvSpec) and len(_comparable(case)) > 1]
    if not grouped:
        raise ValueError(
            "no case leaves a choice that an estimator covers: only grouped convolutions do, as in resnext50"
        )
    pairs = [(chip, case) for chip in generations for case in grouped]
    found = []
    with Laboratory(deadline) as laboratory:
        for done, (chip, case) in enumerate(pairs):
            progress(done, len(pairs), f"{chip.name} {case.name}")
            choice = _choice(laboratory, case, chip)
            if choice is not None:
                found.append(choice)
    progress(len(pairs), len(pairs), "")
    return found


def _comparable(case: Case) -> list[dict[str, Any]]:
    """The Configs of the dense family, which XLA compiles without a Pallas kernel."""
    return [config for config in every(case) if config["type"] == "dense.Config"]


def _choice(laboratory: Laboratory, case: Case, chip: Chip) -> Choice | None:
    """None where the stock lowering cannot be compiled, to which all are compared."""
    stock = _estimate(laboratory, Request(STOCK["conv"], case.spec, chip.topology), chip)
    if stock is None:
        return None
    requests = [(c, Request(OURS["conv"], case.spec, chip.topology, options={"config": c})) for c in _comparable(case)]
    estimates = [(config, _estimate(laboratory, request, chip)) for config, request in requests]
    ranked = [(config, found) for config, found in estimates if found is not None and comparable(found, stock)]
    if not ranked:
        return None
    config, best = min(ranked, key=lambda pair: pair[1].seconds)
    compared = {json.dumps(config): 1e6 * found.seconds for config, found in ranked} | {"stock": 1e6 * stock.seconds}
    return Choice(chip.name, case.name, case.spec, config, stock.seconds / best.seconds, compared)


def _estimate(laboratory: Laboratory, request: Request, chip: Chip) -> Estimate | None:
    try:
        return laboratory.lowered(request, chip, profiled=False).by_hlo
    except CompilerFailed:
        return None


def write(choices: Sequence[Choice], folder: Path | None = None) -> list[Path]:
    """Merge `choices` into the table of each chip in `folder`; the files."""
    folder = folder or table.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for chip in dict.fromkeys(choice.chip for choice in choices):
        file = table.file_of(chip, folder)
        entries = table.read(file) | {
            table.key(choice.spec): table.Entry(choice.config, round(choice.ratio, 3))
            for choice in choices
            if choice.chip == chip
        }
        content = {
            "format": table.FORMAT,
            "op": "conv",
            "device": f"TPU {chip}",
            "note": NOT_MEASURED,
            "evidence": evidence(f"TPU {chip}"),
            "entries": {name: dataclasses.asdict(entries[name]) for name in sorted(entries)},
        }
        _write(file, content)
        files.append(file)
    return files


def _write(file: Path, content: dict[str, Any]) -> None:
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
