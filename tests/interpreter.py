"""What Triton's interpreter does otherwise than every GPU, put right for the tests that look at the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


@pytest.fixture
def interpreter_rounds_to_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
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
