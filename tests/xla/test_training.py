"""torch_xla's own ways of training with what is lowered for TPUs: eager and lazy, compiled, exported, with schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_xla
import torch_xla.debug.metrics as metrics
from torch import Tensor, nn

import accelops
from accelops import demo
from accelops.agreement import EPS, FACTOR, ULPS
from accelops.kernels.adam import xla as adam
from accelops.kernels.conv import xla as conv
from accelops.targets import xla

DEVICE = torch_xla.device()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The Specs that our implementations ran."""
    seen: list[Any] = []
    for module in (conv, adam):
        run = module.run
        monkeypatch.setattr(
            module, "run", lambda config, spec, *a, run=run, **k: (seen.append(spec), run(config, spec, *a, **k))[1]
        )
    accelops.dispatch.select.forget()
    return seen


@pytest.fixture
def enabled() -> Iterator[None]:
    with accelops.enabled(), accelops.use("xla"):
        yield
    accelops.dispatch.select.forget()


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.SiLU())
    return nn.Sequential(*layers, nn.Conv2d(8, 4, 3, 2, groups=2), nn.Flatten(), nn.Linear(64, 5))


def losses(device: Any, step: Callable[[nn.Module, Tensor, Tensor], Tensor], steps: int = 5) -> list[float]:
    model = network()
    images, labels = torch.randn(4, 3, 9, 9), torch.randint(5, (4,))
    model, images, labels = model.to(device), images.to(device), labels.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = step(model, images, labels)
        loss.backward()
        optimizer.step()
        torch_xla.sync()
        found.append(loss.item())
    return found


def demo_losses(device: Any, dtype: torch.dtype, steps: int = 5) -> list[float]:
    """Of the demo's network from one seed."""
    torch.manual_seed(0)
    model = demo.network().to(device, dtype)
    images, labels = torch.randn(8, 3, 32, 32).to(device, dtype), torch.randint(10, (8,)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        torch_xla.sync()
        found.append(loss.item())
    return found


def plainly(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(images), labels)


def test_the_way_is_found_and_said_to_be_emulated() -> None:
    assert xla.unavailable() is None and xla.way() == "torch_xla"
    assert xla.emulated() and xla.devices() == ("xla", "cpu")


@pytest.mark.usefixtures("enabled")
def test_a_network_trains_as_torch_does(runs: list[Any]) -> None:
    got = losses(DEVICE, plainly)
    with accelops.use("aten"):
        expected = losses("cpu", plainly)
    assert got == pytest.approx(expected, rel=1e-4)
    assert {spec.op for spec in runs} == {"conv", "adam"} and {spec.device for spec in runs} == {"xla"}
    assert {spec.direction for spec in runs if spec.op == "conv"} == {"fprop", "dgrad", "wgrad"}


@pytest.mark.usefixtures("enabled")
def test_the_losses_of_the_demo_are_within_the_contract(runs: list[Any]) -> None:
    """As accelops.agreement judges: error against fp64 at most twice the largest that torch makes in these steps."""
    got = demo_losses(DEVICE, torch.float32)
    with accelops.use("aten"):
        torchs, exact = (demo_losses("cpu", dtype) for dtype in (torch.float32, torch.float64))
    error, torchs_error = (max(abs(a - b) for a, b in zip(x, exact, strict=True)) for x in (got, torchs))
    assert error <= max(FACTOR * torchs_error, ULPS * EPS * exact[0]), (error, torchs_error, exact)
    assert exact[-1] < exact[0] and len(runs) == 5 * (3 * 3 - 1 + 1)  # the image wants no gradient; one Adam step


@pytest.mark.usefixtures("enabled")
def test_compiled_by_openxla_without_graph_breaks(runs: list[Any]) -> None:
    model = network()
    images = torch.randn(4, 3, 9, 9)
    with accelops.use("aten"), torch.no_grad():
        expected = model(images)
    compiled = torch.compile(model.to(DEVICE), backend="openxla", fullgraph=True)
    with torch.no_grad():
        got = compiled(images.to(DEVICE))
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-4, atol=1e-5)
    assert [spec.direction for spec in runs][:3] == ["fprop"] * 3


@pytest.mark.usefixtures("enabled")
def test_a_schedule_of_the_learning_rate_compiles_nothing_anew() -> None:
    weight = nn.Parameter(torch.randn(41, 3, device=DEVICE))
    optimizer = accelops.optim.AdamW([weight], lr=0.1, target="xla")
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
    torch_xla.sync()
    counts = []
    for _ in range(10):
        weight.grad = torch.randn(41, 3).to(DEVICE)
        optimizer.step()
        schedule.step()
        torch_xla.sync()
        counts.append(metrics.counter_value("UncachedCompile"))
    before = metrics.counter_value("UncachedCompile") - counts[0]
    assert before <= 1, counts  # the first step makes the state; the second is the first of its kind


@pytest.mark.usefixtures("enabled")
def test_autocast_reaches_the_lowering(runs: list[Any]) -> None:
    input, weight = (torch.randn(s, device=DEVICE) for s in ((2, 3, 8, 8), (4, 3, 3, 3)))
    with torch.autocast("xla", dtype=torch.bfloat16):
        output = F.conv2d(input, weight)
    assert output.dtype is torch.bfloat16 and [spec.dtype for spec in runs] == ["bfloat16"]


@pytest.mark.usefixtures("enabled")
def test_stablehlo_can_be_exported(runs: list[Any]) -> None:
    from torch_xla.stablehlo import exported_program_to_stablehlo

    model = network()[:5]
    images = (torch.randn(2, 3, 9, 9),)
    with accelops.use("aten"):
        exported = torch.export.export(model.eval(), images)
        expected = model(*images)
    written = exported_program_to_stablehlo(exported)
    assert "stablehlo.convolution" in written.get_stablehlo_text()
    torch.testing.assert_close(written(*(i.to(DEVICE) for i in images)).cpu(), expected, rtol=1e-4, atol=1e-5)


def test_what_was_asked_for_and_cannot_serve_raises() -> None:
    with pytest.raises(accelops.TargetUnavailable, match="float64"):
        accelops.functional.conv2d(
            torch.ones(1, 1, 3, 3, dtype=torch.float64, device=DEVICE),
            torch.ones(1, 1, 3, 3, dtype=torch.float64, device=DEVICE),
            target="xla",
        )


@pytest.mark.filterwarnings("error")
def test_unasked_nothing_changes(runs: list[Any]) -> None:
    expected = losses(DEVICE, plainly)
    with accelops.enabled():
        assert losses(DEVICE, plainly) == expected
    assert not runs and losses(DEVICE, plainly) == expected
