"""Triton's interpreter, for tests: rounding as on every GPU, single programs out of a launch, and a way out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from accelops.targets.triton import architecture, launch, launching


def round_to_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """To nearest even, and with subnormal numbers. The interpreter cuts the lower bits off (its `cast_impl`), up to 3.9 at
    least."""
    cut = InterpreterBuilder.cast_impl

    def cast(self: Any, source: Any, wanted: Any) -> Any:
        between = {source.dtype.scalar, wanted.scalar}
        if between != {tl.float32, tl.bfloat16}:
            return cut(self, source, wanted)
        bits = torch.from_numpy(np.ascontiguousarray(source.data))
        if wanted.scalar == tl.bfloat16:
            return TensorHandle(bits.bfloat16().view(torch.uint16).numpy(), tl.bfloat16)
        return TensorHandle(bits.view(torch.bfloat16).float().numpy(), tl.float32)

    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast)


def run_program(which: int, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the one launch that `work` makes, a 1D grid, run only the program `which`, counted from the end if negative."""
    launches: list[Any] = []
    with launching(lambda *a, **k: launches.append((a, k)), architecture()):
        work()
    [((kernel, (programs,), *arguments), constants)] = launches
    program = np.array([which % programs], dtype=np.int32)
    monkeypatch.setattr(InterpreterBuilder, "create_get_program_id", lambda self, axis: TensorHandle(program, tl.int32))
    launch(kernel, (1,), *arguments, **constants)


def without_interpreter(module: str, *arguments: str, cache: Path) -> list[dict[str, Any]]:
    """What `python -m module` prints, a JSON object a line, in a process that compiles kernels, into a new `cache`."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *arguments],
        cwd=Path(__file__).parents[1],
        env=environment | {"TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]
