"""The ops that write into their operands, on torch_xla's tensors: they reach our implementations past functionalization."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_xla

import accelops.dispatch.bucket  # defines its ops
from accelops.kernels.bucket import xla

DEVICE = torch_xla.device()
ops = torch.ops.accelops


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The Specs of bucketing that ran."""
    seen: list[Any] = []
    run = xla.run
    monkeypatch.setattr(xla, "run", lambda config, spec, *a: (seen.append(spec), run(config, spec, *a))[1])
    accelops.dispatch.select.forget()
    return seen


@pytest.mark.parametrize("target", ["xla", None])
def test_buckets_are_packed_unpacked_and_reduced(target: str | None, runs: list[Any]) -> None:
    tensors = [torch.randn(3, 4), torch.randn(7).bfloat16(), torch.empty(0)]
    there = [t.to(DEVICE) for t in tensors]
    flat, residual = torch.full((19,), float("nan"), device=DEVICE).half(), torch.zeros(19, device=DEVICE)
    ops.bucket_pack_(there, flat, 0.5, residual, target)
    exact = torch.cat([t.float().reshape(-1) for t in tensors]) * 0.5
    assert flat.cpu().equal(exact.half())
    assert residual.cpu().equal(exact - exact.half().float())
    ops.bucket_unpack_(flat, there, 2.0, target)
    for got, part in zip(there, exact.half().float().split([12, 7, 0]), strict=True):
        torch.testing.assert_close(got.cpu().float().reshape(-1), part * 2, rtol=2**-8, atol=0)
    ops.bucket_reduce_([flat, flat], flat, 0.5, target)
    assert flat.cpu().equal(exact.half())
    assert [spec.direction for spec in runs] == (["pack", "unpack", "reduce"] if target else [])


def test_the_adam_op_steps() -> None:
    hyper = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
    flags = {"amsgrad": False, "maximize": False, "decoupled_weight_decay": False}
    given = [[torch.ones(3)], [torch.randn(3)], [torch.zeros(3)], [torch.zeros(3)], [], [torch.zeros(())]]
    there = [[t.to(DEVICE) for t in column] for column in given]
    with accelops.use("xla"):
        ops.adam_(*there, **hyper, **flags)
    with accelops.use("aten"):
        ops.adam_(*given, **hyper, **flags)
    for mine, theirs in zip(there, given, strict=True):
        torch.testing.assert_close([t.cpu() for t in mine], theirs, rtol=1e-6, atol=1e-7)
