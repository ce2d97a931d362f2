"""The Triton kernels obey the contract; where there is no GPU, Triton's interpreter runs them, a thousand times slower."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from torch import Tensor

from accelops.kernels.adam import triton
from accelops.kernels.adam.lists import Hyper, Lists
from accelops.targets.triton import devices, emulated

from .contract import HYPER, STATES, AdamContract, copied, error, expected, flat, make

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, at the interpreter's infinities


def to(device: str, lists: Lists) -> Lists:
    return Lists(*([t.to(device) for t in getattr(lists, f.name)] for f in fields(Lists)))


def step(lists: Lists, hyper: Hyper = HYPER, config: Any = None) -> Lists:
    """A step in place of lists on the CPU, on the device that kernels take."""
    moved = to(devices()[0], lists)
    spec = moved.spec()
    assert triton.unsupported(spec) == []
    with torch.no_grad():
        triton.run(config or triton.configs(spec)[0], spec, moved, hyper)
        for name in (*STATES, "state_steps", "grads"):
            for original, result in zip(getattr(lists, name), getattr(moved, name), strict=True):
                if result.device != original.device:
                    original.copy_(result)
    return lists


@pytest.fixture(autouse=True)
def _interpreter_rounds_to_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every GPU does. Triton's interpreter cuts the lower bits off (its `cast_impl`), up to 3.9 at least."""
    if not emulated():
        return
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cut = InterpreterBuilder.cast_impl

    def cast(self: Any, source: Any, wanted: Any) -> Any:
        if source.dtype.scalar == tl.float32 and wanted.scalar == tl.bfloat16:
            rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
            return TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)
        return cut(self, source, wanted)

    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast)


class TestTriton(AdamContract):
    implementation = triton

    def run(self, lists: Lists, hyper: Hyper = HYPER) -> Lists:
        return step(lists, hyper)
