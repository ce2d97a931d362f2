"""accelops.nn: the modules, and accelerate on networks as people build them."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import accelops.nn
from accelops import joining
from tests.networks import chain


@pytest.fixture(autouse=True)
def small_results_join_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "least_result", 0)


def outcome(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    output = model(x)
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    wanted = [x, *model.parameters()]
    return [output.detach(), *torch.autograd.grad(output, wanted, weight)]


def assert_within(ours: list[Tensor], theirs: list[Tensor], exact: list[Tensor]) -> None:
    for a, b, truth in zip(ours, theirs, exact, strict=True):
        allowed = 2 * (b - truth).abs().max() + 8 * torch.finfo(torch.float32).eps * truth.abs().max()
        assert (a - truth).abs().max() <= allowed


def test_folding_follows_the_statistics_and_ends_with_train() -> None:
    model = chain()
    plain, fast = copy.deepcopy(model), accelops.nn.accelerate(model)
    for _ in range(3):
        x = torch.randn(4, 3, 16, 16)
        for m in (plain, fast):
            m.train()(x)
        for a, b in zip(plain.buffers(), fast.buffers(), strict=True):
            torch.testing.assert_close(a, b)
        with torch.inference_mode():
            torch.testing.assert_close(fast.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 1, "padding": 1}, {"kernel_size": 3, "stride": 2, "ceil_mode": True}])  # fmt: skip
def test_relu_and_pool_swap_bit_for_bit_with_ties_and_nan(pool: dict[str, Any]) -> None:
    x = torch.randint(-2, 3, (2, 3, 9, 9)).float()
    x[0, 0, 4, 4] = torch.nan
    plain = nn.Sequential(nn.ReLU(), nn.MaxPool2d(**pool))
    theirs = outcome(plain, x)
    for a, b in zip(outcome(accelops.nn.accelerate(plain), x), theirs, strict=True):
        assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))


def test_state_dict_parameters_and_strides_stay() -> None:
    model = chain()
    before = {k: (v.data_ptr(), v.stride()) for k, v in model.state_dict().items()}
    parameters = list(model.parameters())
    fast = accelops.nn.accelerate(model)
    assert isinstance(fast, nn.Sequential)
    fast(torch.randn(4, 3, 16, 16)).sum().backward()
    after = {k: (v.data_ptr(), v.stride()) for k, v in fast.state_dict().items()}
    assert before == after and list(before) == list(after)
    assert all(a is b for a, b in zip(parameters, fast.parameters(), strict=True))
    file = io.BytesIO()
    torch.save(fast.state_dict(), file)
    file.seek(0)
    chain().load_state_dict(torch.load(file))


def test_copies_and_pickles_compute_the_same() -> None:
    fast = accelops.nn.accelerate(chain())
    x = torch.randn(4, 3, 16, 16)
    fast.eval()
    for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), accelops.nn.accelerate(fast)):
        torch.testing.assert_close(copied(x), fast(x))


def test_hooks_see_what_they_saw() -> None:
    for watched in range(3):
        seen: list[Tensor] = []
        plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
        plain[watched].register_forward_hook(lambda _m, _i, output, seen=seen: seen.append(output.detach().clone()))
        x = torch.randn(2, 3, 10, 10)
        plain(x)
        accelops.nn.accelerate(plain)(x)
        torch.testing.assert_close(*seen)


def test_subclasses_and_parametrizations_are_left_alone() -> None:
    class Loud(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    plain = nn.Sequential(nn.Conv2d(3, 4, 3), Loud(), nn.MaxPool2d(2), nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), nn.ReLU())  # fmt: skip
    x = torch.randn(2, 3, 12, 12)
    expected = plain(x)
    torch.testing.assert_close(accelops.nn.accelerate(plain)(x), expected)


def test_a_parent_that_views_the_result_still_can() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.features(x).view(x.shape[0], -1)

    model, x = Net(), torch.randn(2, 3, 12, 12)
    expected = model(x)
    torch.testing.assert_close(accelops.nn.accelerate(model)(x), expected, rtol=1e-4, atol=1e-5)


def test_dropout_draws_the_same_numbers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 4, 3))
    x = torch.randn(2, 3, 12, 12)
    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    torch.testing.assert_close(accelops.nn.accelerate(model)(x), expected, rtol=1e-4, atol=1e-5)


def test_compile_takes_the_accelerated_model_whole() -> None:
    fast, x = accelops.nn.accelerate(chain()).eval(), torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(torch.compile(fast, fullgraph=True, backend="aot_eager")(x), fast(x), rtol=1e-4, atol=1e-5)  # fmt: skip


def test_report_names_what_runs_as_one() -> None:
    lines = accelops.nn.report(accelops.nn.accelerate(chain()).eval())
    assert lines == [
        "model: runs in channels_last where its input is on the CPU",
        "0: Conv2d + ReLU + MaxPool2d",
        "4: Conv2d + BatchNorm2d + ReLU",
        "3.0: Conv2d + BatchNorm2d + SiLU",
    ]


@pytest.mark.parametrize("name", ["MobileNetV2", "ConvNext", "RegNet", "ResNet"])
def test_networks_of_transformers_keep_their_results(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    small: dict[str, Any] = {"ConvNext": {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 64, 128]}}
    small |= {n: {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 64, 128], "embedding_size": 16} for n in ("RegNet", "ResNet")}  # fmt: skip
    small["RegNet"]["groups_width"] = 8
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**small.get(name, {}))).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        theirs, exact = (m(i).last_hidden_state for m, i in ((model, x), (copy.deepcopy(model).double(), x.double())))
        ours = accelops.nn.accelerate(model)(x).last_hidden_state
    assert_within([ours], [theirs], [exact])


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_modules_are_torchs_with_an_activation(ndim: int, mode: str) -> None:
    theirs = getattr(nn, f"Conv{ndim}d")(4, 8, 3, padding=1, groups=4, padding_mode=mode)
    ours = getattr(accelops.nn, f"Conv{ndim}d")(4, 8, 3, padding=1, groups=4, padding_mode=mode, activation="relu")
    ours.load_state_dict(theirs.state_dict())
    assert isinstance(ours, type(theirs)) and "activation=relu" in repr(ours)
    x = torch.randn(2, 4, *[6] * ndim)
    torch.testing.assert_close(ours(x), F.relu(theirs(x)))
    torch.testing.assert_close(pickle.loads(pickle.dumps(ours))(x), ours(x))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_transposed_modules_take_an_output_size(ndim: int) -> None:
    theirs = getattr(nn, f"ConvTranspose{ndim}d")(4, 8, 3, stride=2)
    ours = getattr(accelops.nn, f"ConvTranspose{ndim}d")(4, 8, 3, stride=2, activation="silu", target="aten")
    ours.load_state_dict(theirs.state_dict())
    x, size = torch.randn(2, 4, *[5] * ndim), [12] * ndim
    torch.testing.assert_close(ours(x, size), F.silu(theirs(x, size)))
