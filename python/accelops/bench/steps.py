"""Whole training steps: forward, loss, backward and Adam, of networks built from transformers' configs, random weights.

torch as called: contiguous, default Adam; torch's best: channels_last and fused=True. The accelops side as called is the
first script with the two lines of the README: model = accelops.nn.accelerate(model, memory_format=torch.channels_last) and
accelops.enable(); both scripts with enable() alone are shown beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import nn

import accelops
import accelops.nn  # above bench in the house: what is timed is what a user writes
from accelops.timing import Variant, captured, interleaved

from .rows import Job, Row, Setting, ran, row, selections_of

BATCH = {"cpu": 8, "cuda": 64}
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


def resnet50() -> nn.Module:
    """ResNet-50, the config's defaults."""
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig(num_labels=CLASSES))


def mobilenet_v3() -> nn.Module:
    """MobileNetV3-Large; transformers has none."""
    from torchvision.models import mobilenet_v3_large

    return mobilenet_v3_large(num_classes=CLASSES)


NETWORKS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "cpu": {"MobileNetV2": mobilenet_v2, "RegNet, 8 channels per group": regnet, "ConvNeXt-T": convnext},
    "cuda": {"ResNet-50": resnet50, "ConvNeXt-T": convnext, "MobileNetV3-Large": mobilenet_v3},
}


def jobs(setting: Setting) -> list[Job]:
    """Raises ModuleNotFoundError where a package is missing that the networks of a device come from."""
    for package in ("transformers", "torchvision") if setting.device == "cuda" else ("transformers",):
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"the suite steps builds its networks with {package}: pip install {package}")
    return [
        Job(name, lambda _ceilings, seconds, build=build, name=name: _measure(name, build, setting, seconds))
        for name, build in NETWORKS[setting.device].items()
    ]


def _measure(name: str, build: Callable[[], nn.Module], setting: Setting, seconds: float) -> Row:
    torch.manual_seed(0)
    model = build().to(setting.device).train()
    last = torch.channels_last
    fused = {"fused": True}
    faster = accelops.nn.accelerate(copy.deepcopy(model), memory_format=last)
    converted = copy.deepcopy(model).to(memory_format=last)
    variants = {
        "torch": Variant(_step(model, setting)),
        "accelops": Variant(_step(faster, setting), accelops.enabled),
        "accelops enable() alone": Variant(_step(model, setting), accelops.enabled),
        "torch channels_last, fused": Variant(_step(converted, setting, last, fused)),
        "accelops channels_last, fused": Variant(_step(converted, setting, last, fused), accelops.enabled),
    }
    what_ran = [line for v in variants if v.startswith("accelops") for line in ran(v, selections_of(variants[v]))]
    if setting.device == "cuda":
        fused = {"fused": True, "capturable": True}
        steps = [_step(converted, setting, last, fused) for _ in range(2)]
        variants["torch channels_last, fused, one graph"] = captured(steps[:1])
        variants["accelops channels_last, fused, one graph"] = captured(steps[1:], accelops.enabled)
    return row(name, "training step", interleaved(variants, seconds, setting.device), what_ran)


def _step(
    model: nn.Module,
    setting: Setting,
    form: torch.memory_format = torch.contiguous_format,
    options: dict[str, bool] | None = None,
) -> Callable[[], object]:
    """One training step of a copy of `model`, with an optimizer of its own, in autocast where the dtype is not fp32."""
    model = copy.deepcopy(model)
    batch = setting.batch or BATCH[setting.device]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, SIZE, SIZE, generator=generator).to(setting.device, memory_format=form)
    labels = torch.randint(0, CLASSES, (batch,), generator=generator).to(setting.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, **(options or {}))
    dtype = getattr(torch, setting.dtype)
    autocast = partial(torch.autocast, setting.device, dtype) if dtype is not torch.float32 else nullcontext

    def step() -> None:
        optimizer.zero_grad()
        with autocast():
            output = model(images)
        F.cross_entropy(getattr(output, "logits", output).float(), labels).backward()
        optimizer.step()

    return step
