"""The file that benchmarks/gpu.py writes, and how much time is left for it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any


class Report:
    """The JSON, and how much time is left for it."""

    def __init__(self, path: Path, minutes: float, seed: int, about: dict[str, Any]) -> None:
        self.path = path
        self.deadline = monotonic() + 60 * minutes
        self.content: dict[str, Any] = {"evidence": about, "seed": seed, "left_out": [], "results": []}

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, suffix=".tmp")
        with os.fdopen(handle, "w") as stream:
            json.dump(self.content, stream, indent=1)
        os.replace(temporary, self.path)

    def time_for(self, what: str, seconds: float) -> bool:
        """Whether so many seconds are left; notes what is left out otherwise."""
        if monotonic() + seconds < self.deadline:
            return True
        self.content["left_out"].append(what)
        return False
