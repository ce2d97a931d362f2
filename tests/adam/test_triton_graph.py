"""A CUDA graph of a step replays what eager steps do, whatever becomes of the tables that were kept meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from accelops.kernels.adam.triton import tables
from accelops.optim import Adam

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SHAPES = ((1000, 33), (7,), (4097,))


def weights(dtype: torch.dtype) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(s).to("cuda", dtype)) for s in SHAPES]


def gradients(params: list[nn.Parameter]) -> None:
    """In fresh memory, as a backward pass leaves them."""
    for p in params:
        p.grad = p.detach() * 0.5 + 0.25


def replayed(params: list[nn.Parameter], optimizer: Adam, replays: int) -> list[Tensor]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            gradients(params)
            optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradients(params)
        optimizer.step()
    tables._kept.clear()
    junk = [torch.full((1 << 16,), float("nan"), device="cuda") for _ in range(64)]
    for _ in range(replays):
        graph.replay()
    torch.cuda.synchronize()
    del junk
    return [p.detach() for p in params]


@pytest.mark.parametrize(
    "dtype, options",
    [
        (torch.float32, {}),
        (torch.float32, {"max_grad_norm": 0.5, "ema_decay": 0.9, "amsgrad": True}),
        (torch.bfloat16, {"master_weights": True}),
        (torch.bfloat16, {"state_bits": 8, "stochastic_rounding": True}),
    ],
)
def test_replays_are_steps(dtype: torch.dtype, options: dict[str, Any]) -> None:
    params, others = weights(dtype), weights(dtype)
    lr = torch.tensor(1e-2, device="cuda")
    got = replayed(params, Adam(params, lr=lr, capturable=True, target="triton", **options), 3)
    eager = Adam(others, lr=lr, capturable=True, target="triton", **options)
    for _ in range(6):
        gradients(others)
        eager.step()
    for mine, exact in zip(got, others, strict=True):
        assert torch.equal(mine, exact)
    assert {s["step"].item() for s in eager.state.values()} == {6.0}
