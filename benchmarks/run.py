"""Measures suites and writes benchmarks/results/<suite>.json, with a roofline <suite>.png where rows have a place on one.

    python benchmarks/run.py [SUITE ...]        (default: every suite of `accelops bench`)

Each suite runs in a process of its own, as `accelops bench SUITE --json` does. Run benchmarks/record.py afterwards.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from accelops.bench.run import SUITES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("benchmarks") / "results"  # seen from ROOT: the evidence quotes the command, which must fit any machine
WITHOUT_ROOFLINE = ("overhead", "steps")


def main(suites: list[str]) -> int:
    """The number of suites that could not be measured."""
    failed = 0
    for suite in suites:
        command = [sys.executable, "-m", "accelops", "bench", suite, "--output", str(RESULTS / f"{suite}.json")]
        if suite not in WITHOUT_ROOFLINE:
            command += ["--png", str(RESULTS / f"{suite}.png")]
        failed += subprocess.run(command, cwd=ROOT, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(SUITES)))
