"""Triton's interpreter, for tests: rounding as on every GPU, and single programs out of a launch."""

from __future__ import annotations

from collections.abc import Callable
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
