"""accelops.optim.Adam and AdamW, and torch's own with our functional in its place: what torch's own tests and users expect."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.optim.adam as torch_adam
from torch import Tensor, nn
from torch.testing._internal.common_optimizers import optim_db

import accelops
from accelops.dispatch.adam import adam
from accelops.kernels.adam import aten
from accelops.optim import Adam, AdamW

PAIRS = ((Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW))
INFOS = {info.optim_cls: info for info in optim_db if info.optim_cls in (torch.optim.Adam, torch.optim.AdamW)}
INPUTS = [
    pytest.param(ours, theirs, given, id=f"{ours.__name__}-{given.desc}")
    for ours, theirs in PAIRS
    for given in INFOS[theirs].optim_inputs_func(device="cpu")
]


@pytest.fixture(params=[False, True], ids=["ours", "rerouted"])
def rerouted(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether to test torch's own classes on our functional, instead of our classes."""
    if request.param:
        torch_adam.adam = adam
    yield request.param
    torch_adam.adam = aten.functional


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 5)).to(dtype)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dtype = next(net.parameters()).dtype
    for _ in range(steps):
        x = torch.randn(2, 3, 5, 5, generator=generator).to(dtype)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def close(got: list[Tensor], want: list[Tensor]) -> None:
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ours, theirs, given", INPUTS)
def test_every_input_of_torchs_optimizer_database_steps_as_torch(
    ours: type, theirs: type, given: Any, rerouted: bool
) -> None:
    for extra in ({}, {"fused": True}, {"foreach": True}):
        options = {**copy.deepcopy(given.kwargs), **extra}
        if options.get("capturable") and not extra.get("fused"):
            options.pop("capturable")
        if isinstance(options.get("lr"), Tensor) and extra.get("foreach"):
            continue
        if any(isinstance(b, Tensor) for b in options.get("betas", ())) and extra.get("foreach"):
            continue
        nets = model(), model()
        mine = (theirs if rerouted else ours)(nets[0].parameters(), **copy.deepcopy(options))
        got = train(nets[0], mine)
        torch_adam.adam = aten.functional
        close(got, train(nets[1], theirs(nets[1].parameters(), **options)))
        if rerouted:
            torch_adam.adam = adam


@pytest.mark.parametrize("ours, theirs", PAIRS)
def test_torchs_error_inputs_raise_torchs_errors(ours: type, theirs: type) -> None:
    for error in INFOS[theirs].optim_error_inputs_func(device="cpu", dtype=torch.float32):
        given = error.optimizer_error_input
        if issubclass(error.error_type, Warning):
            with pytest.warns(error.error_type, match=error.error_regex):
                ours(given.params, **given.kwargs)
        elif error.error_on.name == "CONSTRUCTION_ERROR":
            with pytest.raises(error.error_type, match=error.error_regex):
                ours(given.params, **given.kwargs)
        else:
            optimizer = ours(given.params, **given.kwargs)
            with pytest.raises(error.error_type, match=error.error_regex):
                optimizer.step()


@pytest.mark.parametrize("ours, theirs", PAIRS)
def test_state_dicts_load_both_ways(ours: type, theirs: type) -> None:
    for first, second in ((ours, theirs), (theirs, ours)):
        net, whole = model(), model()
        train(net, before := first(net.parameters(), amsgrad=True))
        after = second(net.parameters(), amsgrad=True)
        after.load_state_dict(torch.load(saved(before)))
        got = train(net, after, seed=2)
        reference = theirs(whole.parameters(), amsgrad=True)
        train(whole, reference)
        close(got, train(whole, reference, seed=2))


def saved(optimizer: torch.optim.Optimizer) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return file


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_of_the_optimizer_keep_its_settings(duplicate: Any) -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    optimizer = Adam([weight], target="reference", max_grad_norm=1.0, ema_decay=0.9)
    optimizer.step()
    other = duplicate(optimizer)
    other.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    other.step()
    assert torch.equal(other.param_groups[0]["params"][0], weight)
    assert other.defaults == optimizer.defaults


def test_schedulers_hooks_groups_and_closures_work(rerouted: bool) -> None:
    results, calls = [], []
    for cls in (torch.optim.AdamW if rerouted else AdamW, torch.optim.AdamW):
        net = model()
        bias = [p for p in net.parameters() if p.dim() == 1]
        rest = [p for p in net.parameters() if p.dim() > 1]
        optimizer = cls([{"params": bias, "weight_decay": 0.0}, {"params": rest, "lr": 0.1}], lr=0.01)
        optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
        optimizer.register_step_post_hook(lambda *_: calls.append("post"))
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
        for _ in range(4):

            def closure(net: nn.Module = net, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
                optimizer.zero_grad()
                loss = net(torch.ones(2, 3, 5, 5)).square().mean()
                loss.backward()
                return loss

            assert optimizer.step(closure) is not None
            scheduler.step()
        results.append([p.detach() for p in net.parameters()])
        torch_adam.adam = aten.functional
    close(*results)
    assert calls == ["pre", "post"] * 8


@pytest.mark.parametrize("overflow", [False, True])
def test_grad_scaler_scales_and_skips(overflow: bool, rerouted: bool) -> None:
    results = []
    for cls, options in (
        (torch.optim.Adam if rerouted else Adam, {"fused": True} if rerouted else {}),
        (torch.optim.Adam, {}),
    ):
        net = model()
        optimizer = cls(net.parameters(), **options)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(3):
            optimizer.zero_grad()
            x = torch.full((2, 3, 5, 5), float("inf") if overflow and step == 1 else 1.0)
            scaler.scale(net(x).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append([p.detach() for p in net.parameters()])
        assert {s["step"].item() for s in optimizer.state.values()} == {2.0 if overflow else 3.0}
        torch_adam.adam = aten.functional
    close(*results)


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_max_grad_norm_is_clip_grad_norm(limit: float) -> None:
    nets = model(), model()
    groups = [{"params": [p]} for p in nets[0].parameters()]
    got = train(nets[0], Adam(groups, eps=1.0, max_grad_norm=limit))
    reference = torch.optim.Adam(nets[1].parameters(), eps=1.0)
    reference.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(nets[1].parameters(), limit) and None)
    close(got, train(nets[1], reference))


def test_ema_averages_the_weights() -> None:
    net = model()
    optimizer = Adam(net.parameters(), ema_decay=0.5)
    average = [p.detach().clone() for p in net.parameters()]
    for seed in range(4):
        now = train(net, optimizer, steps=1, seed=seed)
        average = [a.lerp(p, 0.5) for a, p in zip(average, now, strict=True)]
    with optimizer.averaged():
        close([p.detach() for p in net.parameters()], average)
    assert all(map(torch.equal, now, net.parameters()))


def test_masters_step_where_half_precision_would_stand_still() -> None:
    weight = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    exact = nn.Parameter(torch.ones(8))
    optimizer, reference = Adam([weight], lr=1e-4, master_weights=True), torch.optim.Adam([exact], lr=1e-4)
    for _ in range(40):
        weight.grad, exact.grad = torch.ones_like(weight), torch.ones_like(exact)
        optimizer.step()
        reference.step()
    assert torch.equal(weight, exact.bfloat16()) and not weight.eq(1).any()


def test_full_precision_state_survives_saving_and_loads_into_torch() -> None:
    net = model(torch.bfloat16)
    train(net, before := Adam(net.parameters(), master_weights=True, ema_decay=0.9, amsgrad=True))
    after = Adam(net.parameters(), master_weights=True, ema_decay=0.9, amsgrad=True)
    after.load_state_dict(torch.load(saved(before)))
    for p in net.parameters():
        for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "master", "ema"):
            assert after.state[p][key].dtype == torch.float32
            assert torch.equal(after.state[p][key], before.state[p][key])
    plain = torch.optim.Adam(net.parameters(), amsgrad=True)
    plain.load_state_dict(before.state_dict())
    train(net, plain)


def test_parameters_of_mixed_dtypes_step_in_one_call(rerouted: bool) -> None:
    results = []
    for cls in (torch.optim.Adam if rerouted else Adam, torch.optim.Adam):
        torch.manual_seed(0)
        params = [torch.randn(9, dtype=d, requires_grad=True) for d in (torch.float32, torch.float64, torch.complex64)]
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer = cls(params)
        for _ in range(3):
            optimizer.step()
        results.append([p.detach() for p in params])
        torch_adam.adam = aten.functional
    close(*results)


def test_a_lazily_negated_gradient_steps_the_right_way(rerouted: bool) -> None:
    weight = torch.zeros(4, requires_grad=True)
    weight.grad = torch.full((4,), 1 + 2j, dtype=torch.complex64).conj().imag
    assert weight.grad.is_neg()
    (torch.optim.Adam if rerouted else Adam)([weight], lr=0.1).step()
    torch.testing.assert_close(weight.detach(), torch.full((4,), 0.1))


def test_a_lazily_conjugated_gradient_is_refused_as_by_torch(rerouted: bool) -> None:
    weight = torch.zeros(4, dtype=torch.complex64, requires_grad=True)
    weight.grad = torch.full((4,), 1 + 2j, dtype=torch.complex64).conj()
    with pytest.raises(RuntimeError, match="unresolved conjugated"):
        (torch.optim.Adam if rerouted else Adam)([weight], lr=0.1).step()


def test_a_target_that_cannot_serve_raises_and_one_that_can_runs(rerouted: bool) -> None:
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    weight.grad = torch.ones(3, dtype=torch.float64)
    optimizer = (torch.optim.Adam if rerouted else Adam)([weight])
    with accelops.use("cpu"), pytest.raises(accelops.TargetUnavailable, match="float64"):
        optimizer.step()
    with accelops.use("reference"):
        optimizer.step()


def test_sparse_gradients_are_refused_as_by_torch() -> None:
    weight = torch.ones(3, requires_grad=True)
    weight.grad = torch.ones(3).to_sparse()
    with pytest.raises(RuntimeError, match="does not support sparse"):
        Adam([weight]).step()


@pytest.mark.parametrize("option, value", [("max_grad_norm", 0.0), ("ema_decay", 1.5), ("ema_decay", -0.1)])
def test_extras_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"Invalid {option} value"):
        Adam([torch.ones(1, requires_grad=True)], **{option: value})


@pytest.mark.parametrize("ours", [Adam, AdamW, torch.optim.Adam])
def test_torch_compile_of_a_step(ours: type) -> None:
    torch_adam.adam = adam
    try:
        weights = [torch.ones(5, requires_grad=True) for _ in range(2)]
        optimizer, reference = ours([weights[0]], lr=0.1), ours([weights[1]], lr=0.1)
        compiled = torch.compile(optimizer.step, backend="aot_eager")
        for _ in range(3):
            for w in weights:
                w.grad = torch.arange(5.0)
            compiled()
            reference.step()
        torch.testing.assert_close(weights[0], weights[1])
    finally:
        torch_adam.adam = aten.functional


def test_the_op_passes_torchs_opcheck() -> None:
    def lists() -> list[list[Tensor]]:
        return [[torch.rand(n) for n in (5, 7)] for _ in range(5)] + [[torch.tensor(1.0), torch.tensor(2.0)]]

    hyper = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
    for amsgrad in (False, True):
        flags = {"amsgrad": amsgrad, "maximize": False, "decoupled_weight_decay": True}
        torch.library.opcheck(torch.ops.accelops.adam_.default, tuple(lists()), {**hyper, **flags})
