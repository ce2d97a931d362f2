"""Tuning by name, for `accelops tune`: the layers of a conv suite, or a model that a function builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import nn

from accelops.dispatch import tune, tuned
from accelops.dispatch.tune import Measurement
from accelops.kernels.conv.spec import ConvSpec

from . import fused
from .rows import Setting
from .suites import NETWORKS, channels_last, conv_cases

Progress = Callable[[int, int], None]
SUITES = (*NETWORKS, "fused")


def specs(network: str, setting: Setting) -> list[ConvSpec]:
    """What a conv suite, or the suite "fused", asks for: in both memory formats."""
    if network == "fused":
        return fused.specs(setting)
    found = [s for case in conv_cases(network, setting.batch) for s in (case.spec, channels_last(case.spec)) if s]
    return [replace(spec, device=setting.device, dtype=setting.dtype) for spec in found]


def tune_suite(network: str, setting: Setting, seconds: float, progress: Progress) -> list[Measurement]:
    """Measure all candidates on the `specs` of a conv suite, and write the user's table."""
    measurements = []
    problems = specs(network, setting)
    for done, spec in enumerate(problems, 1):
        measurement = tune.measure(spec, seconds)
        if measurement is not None:
            measurements.append(measurement)
        progress(done, len(problems))
    tune.write(measurements)
    return measurements


def tune_model(name: str, shape: tuple[int, ...], seconds: float, progress: Progress) -> list[Measurement]:
    """accelops.tune for the model that `package.module:function` returns, on a random input of `shape`.

    Raises ValueError for a name that leads to no model, ModuleNotFoundError for an unknown module."""
    module, _, function = name.partition(":")
    build = getattr(import_module(module), function, None) if function else None
    if not callable(build):
        raise ValueError(f"what={name!r}: expected a suite ({', '.join(SUITES)}) or package.module:function")
    model = build()
    if not isinstance(model, nn.Module):
        raise ValueError(f"what={name!r}: expected a torch.nn.Module, the function returned {type(model).__name__}")
    return tune.tune(model, torch.randn(shape), seconds=seconds, progress=progress)


def to_dict(measurement: Measurement) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {
        "spec": measurement.spec.to_json(),
        "target": measurement.target,
        "config": tuned.describe(measurement.config),
        "ratio": measurement.ratio,
        "ratios": measurement.ratios,
    }
