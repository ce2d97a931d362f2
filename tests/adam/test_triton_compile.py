"""Every kernel of the Triton step compiles for every architecture, without spills, within its shared memory, and moves 16
bytes at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from accelops.targets.triton import ARCHITECTURES

from ..interpreter import without_interpreter

# 168 registers leave room for three programs of 128 threads. Triton 3.6 needs some more for the same.
MOST_REGISTERS, MOST_SPILLED = (168, 0) if tuple(map(int, version("triton").split(".")[:2])) >= (3, 9) else (232, 8)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_kernel_fits(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    compiled = without_interpreter("tests.adam.compilation", name, cache=tmp_path)
    record_property("compiled", len(compiled))
    assert {c["kernel"] for c in compiled} == {"count", "step"}
    for c in compiled:
        assert c["error"] == "" and c["spilled"] <= MOST_SPILLED, c
        assert c["shared"] <= ARCHITECTURES[name].shared_memory // 4, c  # four programs at once
        assert c["registers"] <= MOST_REGISTERS, c
        if c["kernel"] == "step" and not few_elements(c["config"], ARCHITECTURES[name].warp):
            assert c["wide"] >= (2 if "uint8" in c["spec"] else 4), c  # parameter and gradient; and two moments


def few_elements(config: str, warp: int) -> bool:
    """Whether a thread has fewer elements than are 16 bytes of 16 bits."""
    block, warps = (int(re.search(rf"{name}=(\d+)", config)[1]) for name in ("block", "num_warps"))
    return block // (warps * warp) < 8
