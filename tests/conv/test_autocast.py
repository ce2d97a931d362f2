"""Convolutions under torch.autocast give torch's values, not only its dtypes: the operands are rounded where torch rounds them,
and gradients come back in the dtypes of the parameters.

Against the same network in fp64 the error may be twice that of torch under autocast, by the norm of each tensor; both
round to bf16, which decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import accelops
from accelops.dispatch.select import observed

# name, input, weight, options
CASES = [
    ("conv1d", (3, 32, 50), (32, 1, 7), {"groups": 32, "padding": 3}),
    ("conv2d", (2, 16, 14, 13), (16, 1, 3, 3), {"groups": 16, "padding": 1}),
    ("conv2d", (2, 16, 14, 13), (24, 4, 3, 3), {"groups": 4, "stride": 2}),
    ("conv3d", (2, 8, 5, 6, 7), (8, 1, 3, 3, 3), {"groups": 8, "padding": 1}),
]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    print(f"seed {torch.seed() % 2**31}")
    yield
    accelops.disable()


def operands(input: tuple[int, ...], weight: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, requires_grad=True) for shape in (input, weight, weight[:1])]


def values(function: Callable[..., Tensor], tensors: list[Tensor], grad: Tensor) -> list[Tensor]:
    output = function(*tensors)
    return [output.detach(), *torch.autograd.grad(output, tensors, grad.to(output.dtype))]


@pytest.mark.parametrize("target", ["cpu", "reference"])
@pytest.mark.parametrize("rerouted", [False, True], ids=["face", "rerouted"])
@pytest.mark.parametrize(("name", "input", "weight", "options"), CASES)
def test_values_and_gradients_are_torchs(
    name: str, input: tuple[int, ...], weight: tuple[int, ...], options: dict[str, int], rerouted: bool, target: str
) -> None:
    tensors, torchs = operands(input, weight), partial(getattr(F, name), **options)
    grad = torch.randn_like(torchs(*tensors)).bfloat16().float()
    exact = values(torchs, [t.detach().double().requires_grad_() for t in tensors], grad)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = values(torchs, tensors, grad)
        ours = partial(getattr(F if rerouted else accelops.functional, name), **options)
        with observed() as specs, accelops.use(target), accelops.enabled(ops=("conv",) if rerouted else ("adam",)):
            mine = values(ours, tensors, grad)
    assert {(s.direction, s.dtype) for s in specs} == {(d, "bfloat16") for d in ("fprop", "dgrad", "wgrad")}
    for a, b, truth in zip(mine, theirs, exact, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        error, allowed = (a - truth).norm(), 2 * (b - truth).norm() + 4 * torch.finfo(torch.float32).eps * truth.norm()
        assert error <= allowed, (error, allowed)


def test_without_autocast_and_within_enabled_false_nothing_is_rounded() -> None:
    x, w, b = operands((2, 16, 9, 9), (16, 1, 3, 3))
    plain = F.conv2d(x, w, b, groups=16)
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        for conv2d in (F.conv2d, accelops.functional.conv2d):
            with accelops.enabled():
                torch.testing.assert_close(conv2d(x, w, b, groups=16), plain, rtol=1e-5, atol=1e-5)
