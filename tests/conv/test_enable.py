"""accelops.enable() under everything that torch does with a convolution: the result is torch's, and it is really rerouted.

That a call was rerouted shows in the Specs that dispatch saw, under accelops.use, where every convolution is asked for by
name; and it is served by the reference, so that a result is not torch's own by accident.
"""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import accelops
from accelops.dispatch.reroute import is_enabled
from accelops.dispatch.select import observed
from tests.processes import run_in_processes


@pytest.fixture(autouse=True)
def torch_again() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    accelops.disable()


@contextmanager
def rerouted(*directions: str) -> Iterator[None]:
    """Convolutions of this thread run on the reference; afterwards each of `directions` must have been among them."""
    accelops.enable()
    with accelops.use("reference"), observed() as specs:
        yield
    assert {s.direction for s in specs if s.op == "conv"} >= set(directions), specs


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, bias=False))


def image() -> Tensor:
    return torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(2))


def gradients(model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    model(image()).pow(2).sum().backward()
    return [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]


def assert_close(actual: Tensor | list[Tensor], expected: Tensor | list[Tensor]) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_training() -> None:
    expected = gradients(net())
    with rerouted("fprop", "dgrad", "wgrad"):
        assert_close(gradients(net()), expected)


def test_inference_mode() -> None:
    expected = net()(image())
    with rerouted("fprop"), torch.inference_mode():
        assert_close(net()(image()), expected)


def test_double_backward() -> None:
    x, weight = image()[:1].double().requires_grad_(), net()[0].weight.detach().double().requires_grad_()
    with rerouted("fprop", "dgrad", "wgrad"):
        assert torch.autograd.gradcheck(nn.functional.conv2d, (x, weight))
        assert torch.autograd.gradgradcheck(nn.functional.conv2d, (x, weight))


def test_forward_mode() -> None:
    def tangent() -> Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(net()(forward_ad.make_dual(image(), image()))).tangent

    expected = tangent()
    with rerouted("fprop"):
        assert_close(tangent(), expected)


def test_vmap() -> None:
    model = net()
    expected = model(image())
    with rerouted("fprop"):
        assert_close(torch.vmap(lambda x: model(x[None])[0])(image()), expected)


def test_per_sample_gradients() -> None:
    model = net()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, x[None]).pow(2).sum()

    per_sample = torch.vmap(torch.func.grad(loss), (None, 0))
    expected = per_sample(parameters, image())
    with rerouted("fprop", "wgrad"):
        got = per_sample(parameters, image())
    assert_close(list(got.values()), list(expected.values()))


def test_autocast() -> None:
    with rerouted("fprop", "wgrad"), torch.autocast("cpu", torch.bfloat16):
        output = net()(image())
        assert output.dtype is torch.bfloat16
        output.float().sum().backward()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("compiled_first", [False, True])
def test_compile(backend: str, compiled_first: bool) -> None:
    expected = gradients(net())
    model = torch.compile(net(), backend=backend, fullgraph=True)
    if compiled_first:
        gradients(model)
    with rerouted("fprop", "wgrad"):
        assert_close(gradients(model), expected)


def test_export() -> None:
    with rerouted("fprop"):
        program = torch.export.export(net(), (image(),)).module()
        assert_close(program(image()), net()(image()))


def test_script() -> None:
    model = torch.jit.script(net())
    expected = model(image())
    with rerouted("fprop"):
        assert_close(model(image()), expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing(use_reentrant: bool) -> None:
    expected, model = gradients(net()), net()
    with rerouted("fprop", "dgrad", "wgrad"):
        checkpoint(model, image().requires_grad_(), use_reentrant=use_reentrant).pow(2).sum().backward()
    assert_close([p.grad for p in model.parameters()], expected)


def _train_in_parallel() -> None:
    expected, model = gradients(net()), nn.parallel.DistributedDataParallel(net())
    with rerouted("fprop", "wgrad"):
        assert_close(gradients(model), expected)


@pytest.mark.parametrize("processes", [1, 2])
def test_data_parallel_training(processes: int, tmp_path: Path) -> None:
    run_in_processes(_train_in_parallel, processes, tmp_path)


def test_tensor_subclasses_and_hooks() -> None:
    class Named(Tensor):
        pass

    model, seen = net(), []
    model[0].register_forward_hook(lambda module, args, output: seen.append(type(output)))
    with rerouted("fprop"):
        assert type(model(image().as_subclass(Named))) is Named
    assert seen == [Named]


def test_models_are_copied_pickled_and_loaded_as_before() -> None:
    model = net()
    expected = model(image())
    with rerouted("fprop"):
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert type(other[0]) is nn.Conv2d
            assert_close(other(image()), expected)
        assert list(nn.DataParallel(model).state_dict()) == [f"module.{name}" for name in model.state_dict()]


def test_other_threads_are_rerouted_too() -> None:
    outputs: list[Tensor] = []

    def work() -> None:
        with rerouted("fprop"):
            outputs.append(net()(image()).detach())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert_close(outputs[0], net()(image()).detach())


def test_scopes_nest_and_end_with_an_exception() -> None:
    with accelops.enabled():
        with accelops.enabled(ops=("adam",)):
            assert not is_enabled("conv")
        assert is_enabled("conv")
        with pytest.raises(KeyError), accelops.enabled(ops=("adam",)):
            raise KeyError
        assert is_enabled("conv")
    assert not is_enabled("conv")


def test_an_error_in_the_asked_target_reaches_the_caller_and_leaves_the_override_usable() -> None:
    x, w = torch.randn(1, 1, 4, 4, dtype=torch.complex64), torch.randn(1, 1, 3, 3, dtype=torch.complex64)
    accelops.enable()
    with accelops.use("reference"), pytest.raises(accelops.TargetUnavailable):
        torch.ops.aten.convolution(x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    with rerouted("fprop"):
        net()(image())


def test_disable_gives_torchs_bits_back() -> None:
    model = net().double()
    x = image().double()
    before = model(x)
    for _ in range(3):
        accelops.enable()
        accelops.enable()
        with accelops.use("reference"):
            model(x)
        accelops.disable()
        with accelops.use("reference"), observed() as specs:
            assert torch.equal(model(x), before)
        assert not specs


def test_switching_while_other_threads_convolve() -> None:
    model, stop, errors = net(), threading.Event(), []
    expected = model(image()).detach()

    def work() -> None:
        try:
            with accelops.use("reference"):
                while not stop.is_set():
                    assert_close(model(image()).detach(), expected)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        with accelops.enabled():
            model(image())
        accelops.enable()
        accelops.disable()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
