"""Tuning by name, for `accelops tune`: the layers of a conv suite, or a model that a function builds."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn

from accelops.dispatch import tune, tuned
from accelops.dispatch.tune import Measurement

from .suites import NETWORKS, channels_last, conv_cases

Progress = Callable[[int, int], None]


def tune_suite(network: str, batch: int | None, seconds: float, progress: Progress) -> list[Measurement]:
    """Measure all candidates on every Case of a conv suite, in both memory formats, and write the user's table."""
    cases = conv_cases(network, batch)
    specs = [spec for case in cases for spec in (case.spec, channels_last(case.spec)) if spec is not None]
    measurements = []
    for done, spec in enumerate(specs, 1):
        measurement = tune.measure(spec, seconds)
        if measurement is not None:
            measurements.append(measurement)
        progress(done, len(specs))
    tune.write(measurements)
    return measurements


def tune_model(name: str, shape: tuple[int, ...], seconds: float, progress: Progress) -> list[Measurement]:
    """accelops.tune for the model that `package.module:function` returns, on a random input of `shape`.

    Raises ValueError for a name that leads to no model, ModuleNotFoundError for an unknown module."""
    module, _, function = name.partition(":")
    build = getattr(import_module(module), function, None) if function else None
    if not callable(build):
        raise ValueError(f"what={name!r}: expected a suite ({', '.join(NETWORKS)}) or package.module:function")
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
