"""torch.optim.Adam(fused=True) with a GradScaler under enable() leaves what it leaves without: gradients unscaled in place."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

import accelops
from accelops.dispatch.select import observed


def after_a_step(enabled: bool, kind: type, dtype: torch.dtype, overflow: bool) -> list[Tensor]:
    """Gradients, weights and step counts after a scaled step. Scales are powers of two, so that unscaling is exact."""
    torch.manual_seed(0)
    weights = [torch.randn(n, dtype=dtype, requires_grad=True) for n in (1000, 3, 0)]
    weights.append(torch.randn(2, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_())
    optimizer = kind(weights, lr=0.1, fused=True, maximize=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for w in weights:
        w.grad = torch.randn_like(w)
    if overflow:
        weights[1].grad[0] = float("inf")
    scaler.scale(torch.ones(()))  # sets the scale up
    with accelops.enabled() if enabled else nullcontext():
        scaler.step(optimizer)
    steps = [s["step"] for s in optimizer.state.values()]
    return [*(w.grad for w in weights), *(w.detach() for w in weights), *steps]


@pytest.mark.parametrize("overflow", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_gradients_are_left_as_torch_leaves_them(kind: type, dtype: torch.dtype, overflow: bool) -> None:
    with observed() as specs:
        ours = after_a_step(True, kind, dtype, overflow)
    assert specs
    theirs = after_a_step(False, kind, dtype, overflow)
    assert all(torch.equal(a, b) for a, b in zip(ours[:4], theirs[:4], strict=True))
    for mine, other in zip(ours[4:], theirs[4:], strict=True):
        torch.testing.assert_close(mine, other)
