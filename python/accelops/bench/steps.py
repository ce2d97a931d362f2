"""Whole training steps: forward, loss, backward and Adam, of networks built from transformers' configs, random weights.

torch as called: contiguous, default Adam; torch's best: channels_last and fused=True. The accelops side as called is the
first script with the two lines of the README: model = accelops.nn.accelerate(model, memory_format=torch.channels_last) and
accelops.enable(); both scripts with enable() alone are shown beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import nn

import accelops
import accelops.nn  # above bench in the house: what is timed is what a user writes

from .rows import Job, Row, ran, row, selections_of
from .timing import Variant, interleaved

BATCH = 8
SIZE = 224
CLASSES = 1000


def mobilenet_v2() -> nn.Module:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    return MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=CLASSES))


def regnet() -> nn.Module:
    """RegNetX-200MF (Radosavovic et al. 2020): 8 channels per group."""
    from transformers import RegNetConfig, RegNetForImageClassification

    config = RegNetConfig(
        hidden_sizes=[24, 56, 152, 368], depths=[1, 1, 4, 7], groups_width=8, layer_type="x", num_labels=CLASSES
    )
    return RegNetForImageClassification(config)


def convnext() -> nn.Module:
    """ConvNeXt-T, the config's defaults."""
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return ConvNextForImageClassification(ConvNextConfig(num_labels=CLASSES))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MobileNetV2": mobilenet_v2,
    "RegNet, 8 channels per group": regnet,
    "ConvNeXt-T": convnext,
}


def jobs(batch: int | None = None) -> list[Job]:
    """Raises ModuleNotFoundError where transformers is not installed."""
    if find_spec("transformers") is None:
        raise ModuleNotFoundError("the suite steps builds its networks with transformers: pip install transformers")
    return [
        Job(name, lambda _ceilings, seconds, name=name: _measure(name, batch or BATCH, seconds)) for name in NETWORKS
    ]


def _measure(name: str, batch: int, seconds: float) -> Row:
    torch.manual_seed(0)
    model = NETWORKS[name]().train()
    last = torch.channels_last
    fused = {"fused": True}
    faster = accelops.nn.accelerate(copy.deepcopy(model), memory_format=last)
    converted = copy.deepcopy(model).to(memory_format=last)
    variants = {
        "torch": Variant(_step(model, batch)),
        "accelops": Variant(_step(faster, batch), accelops.enabled),
        "accelops enable() alone": Variant(_step(model, batch), accelops.enabled),
        "torch channels_last, fused": Variant(_step(converted, batch, last, fused)),
        "accelops channels_last, fused": Variant(_step(converted, batch, last, fused), accelops.enabled),
    }
    what_ran = [line for v in variants if v.startswith("accelops") for line in ran(v, selections_of(variants[v]))]
    return row(name, "training step", interleaved(variants, seconds), what_ran)


def _step(
    model: nn.Module,
    batch: int,
    form: torch.memory_format = torch.contiguous_format,
    options: dict[str, bool] | None = None,
) -> Callable[[], object]:
    """One training step of a copy of `model`, with an optimizer of its own."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, SIZE, SIZE, generator=generator).contiguous(memory_format=form)
    labels = torch.randint(0, CLASSES, (batch,), generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, **(options or {}))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images).logits, labels).backward()
        optimizer.step()

    return step
