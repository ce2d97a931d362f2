"""The step lowered for TPUs obeys the contract, run by jax on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("jax")

import jax
import jax.numpy as jnp

import accelops
from accelops.kernels.adam import rounding, xla
from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.adam.xla import rounding as in_jax

from .contract import HYPER, STATES, AdamContract, copied, make


class TestXla(AdamContract):
    implementation = xla


def test_a_schedule_of_the_learning_rate_compiles_nothing_anew() -> None:
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    weight = torch.nn.Parameter(torch.randn(41, 3))
    optimizer = accelops.optim.Adam([weight], lr=0.1, weight_decay=0.1, target="xla")
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
    counts = []
    for _ in range(10):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        schedule.step()
        counts.append(len(compiled))
    assert 1 <= counts[0] <= 2 and counts[-1] <= 2, counts


@pytest.mark.parametrize("seed", [0, 3, 2**62 + 12345])
def test_the_same_random_numbers_are_drawn_as_by_torch(seed: int) -> None:
    halves = jnp.asarray(np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32).view(np.int32))
    drawn = np.asarray(in_jax._bits(1531, halves, 5, jnp.float32(9)))
    assert np.array_equal(drawn, rounding.bits(1531, seed, 5, torch.tensor(9.0)).numpy())


def test_stochastic_rounding_gives_the_bits_that_torch_gives() -> None:
    hyper = replace(HYPER, seed=2**40 + 7)
    lists = make(torch.bfloat16, ((33, 5), (4097,)), master=True)
    others = copied(lists)
    spec = lists.spec(stochastic=True)
    assert xla.unsupported(spec) == []
    xla.run(xla.Config(), spec, lists, hyper)
    for param, master, row in zip(lists.params, lists.masters, range(2), strict=True):
        expected = torch.empty_like(param)
        rounding.round_(expected, master, hyper.seed, row, lists.state_steps[row])
        assert torch.equal(param, expected) and not torch.equal(param, others.params[row])


def test_what_is_no_number_stays_none_when_rounded() -> None:
    values = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, 0x7FC00000] * 2, dtype=torch.int32).view(torch.float32)
    odd = torch.cat([values, torch.tensor([float("inf"), -float("inf"), 3.4e38])])
    found = in_jax.rounded(jnp.asarray(odd.numpy()), jnp.zeros(2, jnp.int32), 0, jnp.float32(1))
    assert jnp.isnan(found[:8]).all() and found[8] == jnp.inf and found[9] == -jnp.inf and not jnp.isnan(found[10])


@pytest.mark.parametrize("found", [0.0, 1.0])
def test_a_step_that_found_inf_changes_nothing(found: float) -> None:
    lists = make(torch.float32, amsgrad=True, ema=True)
    before = copied(lists)
    scaled = {"grad_scale": torch.tensor([8.0]), "found_inf": torch.tensor([found]), "lr": torch.tensor(0.01)}
    hyper = replace(HYPER, **scaled, grad_factor=torch.tensor(0.5))
    xla.run(xla.Config(), lists.spec(), lists, hyper)
    if not found:  # another program, in which the compiler may fuse other products and sums
        xla.run(xla.Config(), before.spec(), before, replace(HYPER, grad_factor=0.5 / 8))
    bounds = {"rtol": 0, "atol": 0} if found else {"rtol": 1e-6, "atol": 1e-6}
    for name in (*STATES, "state_steps"):
        torch.testing.assert_close(getattr(lists, name), getattr(before, name), **bounds)


@pytest.mark.parametrize("t", [1, 1000, 10**7])
@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.9, 0.999), (0.99, 0.999999)])
def test_bias_corrections_have_the_precision_of_fp32(t: int, betas: tuple[float, float]) -> None:
    """With m = g = v = 1 the step is lr / (1 - beta1^t) sqrt(1 - beta2^t)."""
    one = torch.ones(1)
    lists = replace(make(torch.float32, ((1,),), steps=(t - 1,)), params=[0 * one], grads=[one.clone()])
    lists = replace(lists, exp_avgs=[one.clone()], exp_avg_sqs=[one.clone()])
    xla.run(xla.Config(), lists.spec(), lists, replace(HYPER, beta1=betas[0], beta2=betas[1], eps=0.0))
    exact = -HYPER.lr / (1 - betas[0] ** t) * (1 - betas[1] ** t) ** 0.5
    assert lists.params[0].item() == pytest.approx(exact, rel=5e-7)


def test_what_it_does_not_serve_it_names() -> None:
    assert "float64" in xla.unsupported(AdamSpec(numel=1, dtype="float64", state_dtype="float64"))[0]
    assert "cuda" in xla.unsupported(AdamSpec(numel=1, device="cuda"))[0]
    assert "uint8" in xla.unsupported(AdamSpec(numel=1, state_dtype="uint8"))[0]
