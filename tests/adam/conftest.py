"""Triton's interpreter, made to round as GPUs do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from accelops.targets.triton import emulated, unavailable


@pytest.fixture(autouse=True)
def _interpreter_rounds_to_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every GPU does. Triton's interpreter cuts the lower bits off (its `cast_impl`), up to 3.9 at least."""
    if unavailable() is not None or not emulated():
        return
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cut = InterpreterBuilder.cast_impl

    def cast(self: Any, source: Any, wanted: Any) -> Any:
        if source.dtype.scalar == tl.float32 and wanted.scalar == tl.bfloat16:
            rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
            return TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)
        return cut(self, source, wanted)

    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast)
