"""The demo's CNN in small, trained on an emulated board: every convolution, forward and backward, and every step of Adam."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import accelops
from accelops import agreement, data, demo
from accelops.agreement import Script
from accelops.targets.fpga.driver import Driver

from .driven import BOARDS, recorded

STEPS, BATCH = 6, 8


@contextmanager
def on_the_board() -> Iterator[None]:
    with accelops.enabled(), accelops.use("fpga"):
        yield


SCRIPTS = {
    "one line": Script(lambda model: model, {}, torch.contiguous_format, on_the_board),
    "accelerated": Script(accelops.nn.accelerate, {}, torch.contiguous_format, on_the_board),
}


def network() -> nn.Sequential:
    """Shape: (N, 3, 16, 16) -> (N, 10)."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels, wider in ((3, 8), (8, 12)):
        layers += [nn.Conv2d(channels, wider, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    strided = [nn.Conv2d(12, 12, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, *strided, nn.Flatten(), nn.Linear(12 * 2 * 2, 10))


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Of real images, at half their size."""
    images, labels = data.load("digits").train
    for at in range(0, STEPS * BATCH, BATCH):
        yield nn.functional.avg_pool2d(images[at : at + BATCH], 2), labels[at : at + BATCH]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("driven", BOARDS, indirect=True)
def test_losses_gradients_and_updates_are_as_close_to_fp64_as_torchs(driven: Driver, name: str):
    with recorded(driven) as launches:
        found = agreement.check(network(), batches(), 1e-2, SCRIPTS[name], (demo.SCRIPTS["torch"],))
    assert found.steps == STEPS
    assert found.agree, found.worst
    # Forward 3, weights' gradients 3, inputs' gradients 1 and, by phases, 4: at least; and an Adam step of all parameters.
    made = Counter(launch.kernel for launch in launches)
    assert made["adam"] == STEPS
    assert made["conv_fp32"] >= 11 * STEPS


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_an_epoch_learns_as_torch_does(driven: Driver):
    losses = {}
    for name, script in {"torch": demo.SCRIPTS["torch"], "board": SCRIPTS["one line"]}.items():
        model = network()
        adam = torch.optim.Adam(model.parameters(), lr=1e-2)
        losses[name] = []
        for images, labels in [*batches()] * 2:
            with script.context():
                loss = nn.functional.cross_entropy(model(images), labels)
                adam.zero_grad()
                loss.backward()
                adam.step()
            losses[name].append(loss.item())
    assert losses["board"][-1] < losses["board"][0]
    torch.testing.assert_close(torch.tensor(losses["board"]), torch.tensor(losses["torch"]), rtol=1e-3, atol=1e-4)
