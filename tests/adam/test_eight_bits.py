"""Steps with moments in 8 bits and with stochastic rounding, from torch's ops and by Triton, against a step in fp64; and the
optimizers that offer them."""

from __future__ import annotations

import io
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from accelops.dispatch.select import observed
from accelops.kernels.adam import aten, blockwise, triton
from accelops.kernels.adam.lists import Hyper, Lists
from accelops.optim import Adam, AdamW
from accelops.targets.triton import devices

from .contract import HYPER, copied, expected, make
from .test_triton import step as by_triton

SHAPES = ((7, 3), (1,), (0,), (33, 5, 3), (4097,), (), (16, 256))
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, at the interpreter's infinities
MODULES = pytest.mark.parametrize("module", [aten, triton], ids=["aten", "triton"])


def in_8_bits(lists: Lists) -> Lists:
    """The same lists, with their moments encoded."""
    first = [blockwise.encoded(m, True) for m in lists.exp_avgs]
    second = [blockwise.encoded(v, False) for v in lists.exp_avg_sqs]
    return replace(
        lists,
        exp_avgs=[codes for codes, _ in first],
        exp_avg_scales=[scales for _, scales in first],
        exp_avg_sqs=[codes for codes, _ in second],
        exp_avg_sq_scales=[scales for _, scales in second],
    )


def decoded(lists: Lists) -> Lists:
    """The same lists, with fp32 moments."""
    columns = {"exp_avg": True, "exp_avg_sq": False}
    moments = {
        f"{name}s": [
            blockwise.decoded(codes, scales, signed)
            for codes, scales in zip(getattr(lists, f"{name}s"), getattr(lists, f"{name}_scales"), strict=True)
        ]
        for name, signed in columns.items()
    }
    return replace(lists, **moments, exp_avg_scales=(), exp_avg_sq_scales=())


def step(module: ModuleType, lists: Lists, hyper: Hyper = HYPER) -> Lists:
    if module is triton:
        return by_triton(lists, hyper)
    spec = lists.spec(hyper.seed is not None)
    with torch.no_grad():
        aten.run(aten.configs(spec)[0], spec, lists, hyper)
    return lists


def largest_error(values: Tensor, signed: bool) -> Tensor:
    """Of each of `values`, fp64 in memory order, the most that its nearest code may be off: half of the step that it is
    in, times the largest magnitude of its block."""
    blocks = torch.nn.functional.pad(values, (0, -len(values) % 256)).view(-1, 256)
    scales = blocks.abs().amax(1, keepdim=True).expand_as(blocks).flatten()[: len(values)]
    numbers = blockwise.numbers(signed, CPU).double()
    place = torch.bucketize(values / scales, numbers).clamp(1, 255)
    half = numbers.diff()[place - 1] / 2
    below = (numbers[0] - values / scales).clamp(min=0)  # -1 is not in the map
    return torch.maximum(half, below) * scales * (1 + 1e-5) + 1e-6 * values.abs()


@MODULES
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("dtype, master", [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)])
def test_moments_are_within_half_a_step_of_fp64(
    module: ModuleType, dtype: torch.dtype, master: bool, decoupled: bool
) -> None:
    torch.manual_seed(torch.seed() % 2**31)
    hyper = replace(HYPER, weight_decay=0.1, decoupled=decoupled, maximize=True, grad_factor=0.3, ema_decay=0.9)
    lists = in_8_bits(make(dtype, SHAPES, master=master, ema=True))
    want = expected(decoded(lists), hyper)
    got = step(module, copied(lists), hyper)
    result = decoded(got)
    for name, signed in (("exp_avgs", True), ("exp_avg_sqs", False)):
        for mine, exact in zip(getattr(result, name), getattr(want, name), strict=True):
            flat = exact.flatten()
            assert ((mine.double().flatten() - flat).abs() <= largest_error(flat, signed)).all()
    for name in ("params", "masters", "emas"):
        for mine, exact in zip(getattr(got, name), getattr(want, name), strict=True):
            torch.testing.assert_close(mine.double(), exact, rtol=2 * torch.finfo(mine.dtype).eps, atol=1e-6)
    assert [s.item() for s in got.state_steps] == [s.item() for s in want.state_steps]


@pytest.mark.parametrize("seed", [None, 5])
def test_triton_and_aten_take_the_same_step(seed: int | None) -> None:
    hyper = replace(HYPER, seed=seed, weight_decay=0.1)
    lists = in_8_bits(make(torch.bfloat16, ((40, 300), (77,)), steps=(4.0, 9.0)))
    ours, theirs = step(triton, copied(lists), hyper), step(aten, copied(lists), hyper)
    for name in ("exp_avg_scales", "exp_avg_sq_scales"):
        for mine, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=0)
    for name in ("exp_avgs", "exp_avg_sqs", "params"):  # but where the last bit of fp32 decides
        for mine, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            assert mine.ne(other).float().mean() < 2e-3, name


def test_every_triton_config_steps_8_bits() -> None:
    lists = in_8_bits(make(torch.float32, ((9000,), (5, 7))))
    results = [by_triton(copied(lists), config=config) for config in triton.configs(lists.spec())]
    for other in results[1:]:
        for name in ("params", "exp_avgs", "exp_avg_sqs", "exp_avg_scales", "exp_avg_sq_scales"):
            assert all(map(torch.equal, getattr(results[0], name), getattr(other, name)))


@MODULES
def test_a_gradient_in_another_order_and_a_parameter_with_gaps_step_the_same(module: ModuleType) -> None:
    lists = in_8_bits(make(torch.float32, ((4, 6, 5, 3),)))
    want = step(module, copied(lists))
    strange = copied(lists)
    strange = replace(strange, grads=[g.contiguous(memory_format=torch.channels_last) for g in strange.grads])
    assert strange.description.irregular == (0,)
    assert torch.equal(step(module, strange).params[0], want.params[0])
    gaps = torch.empty(8, 6, 5, 6)[::2, :, :, ::2].copy_(lists.params[0])
    strange = replace(copied(lists), params=[gaps])
    if module is triton:
        assert "another order" in strange.description.why
    else:
        compose = copied(lists)
        compose = replace(compose, params=[gaps])
        aten.compose(compose, HYPER)
        assert torch.equal(gaps, want.params[0])


def device_of(target: str | None) -> str:
    return devices()[0] if target == "triton" else "cpu"


def weights(dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(s).to(device, dtype)) for s in ((40, 30), (7,), (3, 3, 5, 5))]


def train(params: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = (p.detach() + 0.1 * torch.randn(p.shape, generator=generator).to(p.device)).to(p.dtype)
        optimizer.step()
    return [p.detach().clone() for p in params]


@pytest.mark.parametrize("target", [None, "triton"])
@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_8_bits_train_as_32_do(kind: type, target: str | None) -> None:
    options: dict[str, Any] = {"lr": 1e-2, "eps": 1e-6}
    params, others = (weights(device=device_of(target)) for _ in range(2))
    start = [p.detach().clone() for p in params]
    got = train(params, kind(params, state_bits=8, target=target, **options), 10)
    want = train(others, kind(others, **options), 10)
    for first, mine, exact in zip(start, got, want, strict=True):
        way = (exact - first).norm()
        assert (mine - exact).norm() < 0.1 * way


@pytest.mark.parametrize("target", [None, "triton", "aten"])
@pytest.mark.parametrize(
    "options", [{"state_bits": 8}, {"state_bits": 32}, {"state_bits": 8, "stochastic_rounding": True}]
)
def test_state_dicts_go_on_where_they_were(options: dict[str, Any], target: str | None) -> None:
    params, others = (weights(torch.bfloat16, device_of(target)) for _ in range(2))
    before = Adam(params, target=target, seed=3, **options)
    train(params, before, 3)
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        for p, o in zip(params, others, strict=True):
            o.copy_(p)
    after = Adam(others, target=target, seed=3, **options)
    after.load_state_dict(torch.load(file))
    for p, o in zip(params, others, strict=True):
        assert before.state[p].keys() == after.state[o].keys()
        for key, value in before.state[p].items():
            assert value.dtype == after.state[o][key].dtype and torch.equal(value, after.state[o][key]), key
    assert all(map(torch.equal, train(params, before, 2, seed=2), train(others, after, 2, seed=2)))


def test_moments_of_torch_are_encoded_at_the_next_step() -> None:
    params, others = weights(), weights()
    theirs = torch.optim.Adam(params)
    train(params, theirs, 3)
    ours = Adam(others, state_bits=8)
    ours.load_state_dict(theirs.state_dict())
    exact = theirs.state[params[0]]["exp_avg"].clone()
    others[0].grad = torch.zeros_like(others[0])
    ours.step()
    state = ours.state[others[0]]
    assert "exp_avg" not in state and state["step"].item() == 4
    found = blockwise.decoded(state["exp_avg_codes"], state["exp_avg_scales"], True)
    torch.testing.assert_close(found, exact * 0.9, rtol=0, atol=0.01 * exact.abs().max().item())


@pytest.mark.parametrize("target", [None, "triton"])
def test_updates_smaller_than_bf16_are_not_lost(target: str | None) -> None:
    """30 steps of 1e-4 from 1, where bf16 goes in steps of 2^-8 below. Each rounding adds a variance of at most a quarter
    of the square of a step, so the mean of n weights is off by 5 sqrt(30 / 4 / n) steps once in 1.7 million tests."""
    n = 20_000
    weight, still = (nn.Parameter(torch.ones(n, dtype=torch.bfloat16, device=device_of(target))) for _ in range(2))
    optimizer = Adam(
        [weight], lr=1e-4, state_bits=32, stochastic_rounding=True, seed=torch.seed() % 2**63, target=target
    )
    plain = Adam([still], lr=1e-4, state_bits=32)
    for _ in range(30):
        weight.grad, still.grad = torch.ones_like(weight), torch.ones_like(still)
        optimizer.step(), plain.step()
    assert still.eq(1).all()
    assert abs(weight.double().mean().item() - (1 - 30e-4)) <= 5 * (30 / 4 / n) ** 0.5 * 2.0**-8 + 1e-6


def test_roundings_are_those_of_the_seed() -> None:
    results = []
    for seed in (1, 1, 2):
        params = weights(torch.bfloat16)
        results.append(train(params, Adam(params, lr=1e-4, stochastic_rounding=True, seed=seed), 2))
    assert all(map(torch.equal, results[0], results[1]))
    assert not all(map(torch.equal, results[0], results[2]))


def test_the_spec_says_what_is_asked_for() -> None:
    params = weights(torch.bfloat16)
    with observed() as specs:
        train(params, Adam(params, state_bits=8, stochastic_rounding=True), 1)
    (spec,) = specs
    assert (spec.dtype, spec.state_dtype, spec.stochastic) == ("bfloat16", "uint8", True)
    assert spec.bytes == round(spec.numel * (6 + 4 * (1 + 4 / 256)))


@pytest.mark.parametrize(
    "options, error",
    [
        ({"state_bits": 4}, "state_bits"),
        ({"state_bits": 8, "amsgrad": True}, "amsgrad"),
        ({"stochastic_rounding": True, "master_weights": True}, "stochastic_rounding"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Adam(weights(), **options)
    if "seed" not in options:
        group = {"params": weights(), **options}
        with pytest.raises(ValueError, match=error):
            Adam([nn.Parameter(torch.ones(1))]).add_param_group(group)


def test_complex_parameters_and_sparse_gradients_are_refused() -> None:
    weight = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    weight.grad = torch.ones_like(weight)
    with pytest.raises(TypeError, match="complex64"):
        Adam([weight], state_bits=8).step()
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        Adam([weight], state_bits=8).step()
