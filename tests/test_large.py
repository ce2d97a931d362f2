"""More than 2^31 elements, where an index of 32 bits would wrap: conv and adam; bucket's is in tests/bucket/test_cpu.py.

Memory is kept small by what the operands are, not by smaller sizes: results that a stride makes small, tensors that stand
in a list many times, and one tensor that is parameter, gradient and moments at once. At most 6 GiB, one test at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from accelops import functional
from accelops.kernels.adam import cpu
from accelops.kernels.adam.lists import Hyper, Lists

CHANNELS, SIDE = 129, 4096  # 129 * 4096^2 = 2^31 + 2^24
STRIDED = {"stride": 8, "padding": 1, "groups": CHANNELS}
HYPER = Hyper(lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0, decoupled=False)
Memory = Callable[[float], None]


def test_a_convolution_of_more_than_2_to_the_31_elements(gigabytes: Memory) -> None:
    """Depthwise, so that each channel is a convolution of its own: torch computes the first and the last ones again."""
    gigabytes(5)
    x = torch.zeros(1, CHANNELS, SIDE, SIDE, dtype=torch.bfloat16)
    assert x.numel() > 2**31
    ends = slice(0, 2), slice(CHANNELS - 2, CHANNELS)
    for end in ends:
        x[:, end] = torch.randn(1, 2, SIDE, SIDE)
    w = torch.randn(CHANNELS, 1, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    x.requires_grad_()
    y = functional.conv2d(x, w, **STRIDED, target="cpu")
    grad = torch.zeros_like(y)
    for end in ends:
        grad[:, end] = torch.randn_like(grad[:, end])
    wgrad, dgrad = torch.autograd.grad(y, (w, x), grad)
    for end in ends:
        part = [t.detach()[s].float().requires_grad_() for t, s in ((x, (slice(None), end)), (w, end))]
        exact = F.conv2d(*part, **{**STRIDED, "groups": 2})
        grads = torch.autograd.grad(exact, part, grad[:, end].float())
        for mine, truth in zip((y[:, end], dgrad[:, end], wgrad[end]), (exact, *grads), strict=True):
            # Half a unit in the last place of bf16, and a little for the sum.
            assert (mine - truth).abs().max() <= 1.01 * 2**-8 * truth.abs().max()
    assert not y[:, 2:-2].any() and not dgrad[:, 2:-2].any() and not wgrad[2:-2].any()


def step(tensors: Lists) -> None:
    with torch.no_grad():
        cpu.run(cpu.Config(), tensors.spec(), tensors, HYPER)


def random_lists(n: int) -> list[Tensor]:
    """Parameter, gradient and moments."""
    return [torch.randn(n), torch.randn(n), torch.randn(n), torch.rand(n)]


def lists(rows: list[list[Tensor]]) -> Lists:
    params, grads, exp_avgs, exp_avg_sqs = map(list, zip(*rows, strict=True))
    return Lists(params, grads, exp_avgs, exp_avg_sqs, (), [torch.zeros(()) for _ in rows])


def test_an_adam_step_over_a_list_of_more_than_2_to_the_31_elements(gigabytes: Memory) -> None:
    """33 times the same zeros, which a step leaves as they are, and then numbers."""
    gigabytes(1.5)
    zeros = [torch.zeros(2**26) for _ in range(4)]
    first, last = random_lists(77), random_lists(77)
    expected = [[t.clone() for t in row] for row in (first, last)]
    step(lists([first, *[zeros] * 33, last]))
    step(lists(expected))
    for mine, truth in zip((*first, *last), (*expected[0], *expected[1]), strict=True):
        assert torch.equal(mine, truth)
    assert not any(t.any() for t in zeros)


def test_an_adam_step_of_a_tensor_of_more_than_2_to_the_31_elements(gigabytes: Memory) -> None:
    """One tensor stands in all four places: an element is read from all, then written to the moments and last to the
    parameter, and so ends as the parameter would. Zeros stay zeros."""
    gigabytes(4.5)
    whole = torch.zeros(2**31 + 77, dtype=torch.bfloat16)
    places = slice(0, 77), slice(2**31 - 40, 2**31 + 77)
    before = []
    for place in places:
        whole[place] = torch.rand(place.stop - place.start)
        before.append(whole[place].clone())
    step(lists([[whole] * 4]))
    for place, old in zip(places, before, strict=True):
        row = [old.clone() for _ in range(4)]
        step(lists([row]))
        assert torch.equal(whole[place], row[0]) and not torch.equal(row[0], old)
    assert not whole[1000 : 2**31 - 1000 : 4099].any()
