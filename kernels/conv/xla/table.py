"""Which Config of a convolution the compiler of a TPU estimates to be the fastest: kernels/conv/tuned/tpu_<chip>.json, as
`accelops tpu tune` writes it. No TPU has measured any of it.

A problem is looked up without its bias and activation, which change no choice between lowerings of one convolution, and
has the choice that was made for the largest batch that is not larger than its own: the others' costs grow with the batch,
those of a merged weight do not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from ..spec import ConvSpec

FORMAT = 1
FOLDER = Path(__file__).resolve().parents[1] / "tuned"


@dataclass(frozen=True)
class Entry:
    """`config` as accelops.dispatch.tuned.describe writes it; `ratio`: the estimate of XLA's own lowering of torch's op over
    that of ours, both of one estimator."""

    config: dict[str, Any]
    ratio: float


def file_of(chip: str, folder: Path = FOLDER) -> Path:
    return folder / f"tpu_{chip}.json"


def key(spec: ConvSpec) -> str:
    """What problems that share an entry have in common."""
    return replace(spec, bias=False, activation="none", device="xla").to_json()


def lookup(spec: ConvSpec, chip: str) -> Entry | None:
    """What the table of `chip` ("v5e") knows of `spec`."""
    return _chosen(file_of(chip), spec)


@lru_cache(maxsize=65536)
def _chosen(file: Path, spec: ConvSpec) -> Entry | None:
    entries = _entries(file)
    batches = [b for b in _batches(file) if b <= spec.input[0]]
    found = (entries.get(key(replace(spec, input=(batch, *spec.input[1:])))) for batch in reversed(batches))
    return next((entry for entry in found if entry is not None), None)


@cache
def _batches(file: Path) -> list[int]:
    """Of all entries, the smallest first."""
    return sorted({ConvSpec.from_json(name).input[0] for name in _entries(file)})


@cache
def _entries(file: Path) -> dict[str, Entry]:
    return read(file)


def read(file: Path) -> dict[str, Entry]:
    """By `key`; empty where there is no file. Raises ValueError for one of another format."""
    if not file.exists():
        return {}
    content = json.loads(file.read_text())
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{file}: format {content.get('format')}, expected {FORMAT}; write it anew by accelops tpu tune"
        )
    return {name: Entry(**entry) for name, entry in content["entries"].items()}
