"""accelerate in the settings that networks are trained and served in: DDP, DataParallel, compile, export, fx, functorch,
threads."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import accelops
import accelops.nn
from accelops import joining
from tests.networks import Bottleneck, ResNet, lived_in
from tests.processes import run_in_processes


@pytest.fixture(autouse=True)
def small_results_join_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "least_result", 0)


@pytest.fixture
def pair() -> tuple[nn.Module, nn.Module, Tensor]:
    """A network in eval mode, its accelerated copy, and input for both."""
    model = lived_in(ResNet()).eval()
    return (
        model,
        accelops.nn.accelerate(copy.deepcopy(model), memory_format=torch.channels_last),
        torch.randn(2, 3, 16, 16),
    )


def assert_close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("backend", "training"), [("aot_eager", True), ("aot_eager", False), ("inductor", True)])
def test_compiled_before_or_after_it_computes_the_same(backend: str, training: bool) -> None:
    plain, x = lived_in(Bottleneck(4, 4)).train(training), torch.randn(2, 4, 8, 8)
    fast, before = copy.deepcopy(plain), copy.deepcopy(plain)
    compiled_before = torch.compile(before, backend=backend)
    for model in (fast, before):
        accelops.nn.accelerate(model, memory_format=torch.channels_last)
    with torch.set_grad_enabled(training), accelops.enabled():
        expected = plain(x)
        for compiled in (torch.compile(fast, backend=backend, fullgraph=True), compiled_before):
            assert_close(compiled(x), expected)


def _train(model: nn.Module, batches: Tensor, results: Any) -> None:
    model, rank = copy.deepcopy(model), torch.distributed.get_rank()  # what a spawned process is given, all share
    with accelops.enabled():
        ddp = DistributedDataParallel(accelops.nn.accelerate(model, memory_format=torch.channels_last))
        optimizer = torch.optim.SGD(ddp.parameters(), lr=0.01)
        for batch in batches[:, rank]:
            optimizer.zero_grad()
            ddp(batch).square().mean().backward()
            optimizer.step()
        if rank == 0:
            results.update({name: p.detach().clone() for name, p in model.named_parameters()})


def test_two_processes_of_ddp_train_as_torch_does_on_both_halves(tmp_path: Path) -> None:
    model, batches = ResNet(), torch.randn(2, 2, 2, 3, 16, 16)
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        run_in_processes(_train, 2, tmp_path, model, batches, results)
        trained = dict(results)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for pair in batches:
        optimizer.zero_grad()
        sum(model(half).square().mean() / 2 for half in pair).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert_close(trained[name], parameter.detach())


def test_replicas_of_data_parallel_compute_the_same(pair: tuple[nn.Module, nn.Module, Tensor]) -> None:
    plain, fast, x = pair
    replica = fast._replicate_for_data_parallel()
    with torch.no_grad():
        assert_close(replica(x), plain(x))


def test_threads_that_share_a_model_do_not_meet(pair: tuple[nn.Module, nn.Module, Tensor]) -> None:
    plain, fast, _ = pair
    inputs = [torch.randn(2, 3, 16, 16) for _ in range(32)]

    def serve(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return fast(x)

    with ThreadPoolExecutor(4) as pool:
        for x, y in zip(inputs, pool.map(serve, inputs), strict=True):
            with torch.no_grad():
                assert_close(y, plain(x))


@torch.no_grad()
def test_fx_export_and_jit_trace_see_a_plain_network(pair: tuple[nn.Module, nn.Module, Tensor]) -> None:
    plain, fast, x = pair
    expected = plain(x)
    assert_close(torch.fx.symbolic_trace(fast)(x), expected)
    assert_close(torch.export.export(fast, (x,)).module()(x), expected)
    assert_close(torch.jit.trace(fast, x, check_trace=False)(x), expected)


def test_functorch_and_forward_ad_pass_through(pair: tuple[nn.Module, nn.Module, Tensor]) -> None:
    plain, fast, x = pair
    expected, tangent = torch.func.jvp(plain, (x,), (torch.ones_like(x),))
    for ours, theirs in zip(torch.func.jvp(fast, (x,), (torch.ones_like(x),)), (expected, tangent), strict=True):
        assert_close(ours, theirs)
    with torch.no_grad():
        each = torch.func.vmap(lambda one: fast(one.unsqueeze(0)).squeeze(0))(x)
    assert_close(each, expected.detach())


def test_a_model_in_training_is_judged_by_second_derivatives_too(pair: tuple[nn.Module, nn.Module, Tensor]) -> None:
    plain, fast, x = pair
    found = []
    for model in (plain.train(), fast.train()):
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(model(leaf).square().sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), leaf)[0])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3 * found[0].abs().max().item())


@pytest.mark.parametrize("shape", [(7,), (2, 4, 8, 8), (2, 3, 8)])
def test_input_that_does_not_fit_raises_what_torch_raises(shape: tuple[int, ...]) -> None:
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    for model in (ResNet(), chain):
        fast = accelops.nn.accelerate(copy.deepcopy(model.eval()), memory_format=torch.channels_last)
        with torch.no_grad(), pytest.raises((RuntimeError, ValueError)) as theirs:
            model(torch.randn(shape))
        with torch.no_grad(), pytest.raises(theirs.type):
            fast(torch.randn(shape))
