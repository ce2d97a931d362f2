"""Reads libtpu's static LLO profile: for each instruction of the compiled module the cycles of its machine code, loops and
DMAs included. It is the only estimate there is of a Pallas kernel.

The profiler knows some DMAs not at all (v4 has none that it knows) and then aborts the process that compiles: the reason
stands in the log, which `abortion` finds. DMAs that run together each have the whole bandwidth in it: bound it by the
roofline.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FLAG = "--xla_jf_dump_static_llo_profile_to"
ONLY_FLAG = "--xla_jf_dump_only_matching_hlo"

_ESTIMATE = re.compile(r'hlo_op_name: "([^"]*)"\s+estimated_cycles: (-?\d+)\s+num_equivalent_hlos: (\d+)')
_ABORTION = re.compile(r"Static LLO profiling of (\S+) failed: \w+: ([^\n]*)")


@dataclass(frozen=True)
class Estimated:
    """An instruction's `cycles`; it stands for `count` alike, itself among them, of which it alone has an entry."""

    cycles: int
    count: int


def parse(texts: Iterable[str]) -> dict[str, Estimated]:
    """By the name of the instruction."""
    found = (match for text in texts for match in _ESTIMATE.findall(text))
    return {name: Estimated(int(cycles), int(count)) for name, cycles, count in found}


def take(folder: Path) -> dict[str, Estimated]:
    """What the profiler wrote into `folder`, which is empty afterwards."""
    files = sorted(folder.glob("*.textproto"))
    estimated = parse(file.read_text() for file in files)
    for file in files:
        file.unlink()
    return estimated


def abortion(log: str) -> str | None:
    """Why the profiler aborted, and over which instruction; None where it did not."""
    found = _ABORTION.search(log)
    return f"the static LLO profiler cannot model {found[1]}: {found[2].rstrip('.')}" if found else None
