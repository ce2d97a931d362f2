"""accelops.tune: measure every candidate on the Specs that a model really runs, and write the user's tuned table.

A candidate replaces torch's kernel only if it is faster by more than the noise (MARGIN). Tuning never happens unasked.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from accelops.kernels.spec import Spec
from accelops.targets import emulated, unavailable

from . import reroute, tuned
from .select import candidates, forget, implementation, observed

MARGIN = 1.03


@dataclass(frozen=True)
class Measurement:
    """The fastest candidate for `spec` (target "aten": torch's own) and its speed as a multiple of torch's; `ratios` has
    the best of every candidate that could serve."""

    spec: Spec
    target: str
    config: Any
    ratio: float
    ratios: dict[str, float]


def tune(
    model: nn.Module,
    example_inputs: tuple[Any, ...] | Tensor,
    *,
    loss: Callable[[Any], Tensor] | None = None,
    seconds: float = 1.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Measurement]:
    """Run `model` once forward and backward on `example_inputs`, measure all candidates on each Spec met, write the table.

    `loss` turns the output into a scalar (default: the sum of its first tensor); gradients are left as they were.
    `seconds` is spent per Spec. Afterwards running programs select anew. Raises what the model raises.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    specs = specs_of(model, inputs, loss)
    measurements = [m for m in _measured(specs, seconds, progress) if m is not None]
    write(measurements)
    return measurements


def specs_of(model: nn.Module, inputs: tuple[Any, ...], loss: Callable[[Any], Tensor] | None = None) -> list[Spec]:
    """The distinct Specs that one forward and backward of `model` asks dispatch for."""
    with observed() as seen, reroute.enabled(), torch.enable_grad():
        output = model(*inputs)
        scalar = (loss or _sum_of_first_tensor)(output)
        parameters = [p for p in model.parameters() if p.requires_grad]
        if parameters and scalar.requires_grad:
            torch.autograd.grad(scalar, parameters, allow_unused=True)
    return sorted(seen, key=Spec.to_json)


def _sum_of_first_tensor(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output.float().sum()


def _measured(
    specs: Iterable[Spec], seconds: float, progress: Callable[[int, int], None]
) -> Iterable[Measurement | None]:
    specs = list(specs)
    for i, spec in enumerate(specs):
        yield measure(spec, seconds)
        progress(i + 1, len(specs))


def measure(spec: Spec, seconds: float = 1.0) -> Measurement | None:
    """Time all candidates on random operands for about `seconds`, interleaved; None where only torch can serve."""
    variants: dict[tuple[str, Any], Callable[[], Any]] = {}
    operands = import_module(f"accelops.kernels.{spec.op}.operands").operands(spec)
    for target in candidates(spec.op):
        if target == "reference" or unavailable(target) or emulated(target):
            continue
        module = implementation(spec.op, target)
        if not module.unsupported(spec):
            for config in module.configs(spec):
                variants[target, config] = lambda module=module, config=config: module.run(config, spec, *operands)
    if len({target for target, _ in variants}) < 2:
        return None
    times = _interleaved(variants, seconds)
    torchs = min(t for (target, _), t in times.items() if target == "aten")
    ratios = {target: torchs / min(t for (other, _), t in times.items() if other == target) for target, _ in times}
    (target, config), best = min(times.items(), key=lambda item: item[1])
    if target == "aten" or torchs / best < MARGIN:
        return Measurement(spec, "aten", implementation(spec.op, "aten").configs(spec)[0], 1.0, ratios)
    return Measurement(spec, target, config, torchs / best, ratios)


def _interleaved(variants: dict[Any, Callable[[], Any]], seconds: float) -> dict[Any, float]:
    """Median time of a call of each variant, in seconds; one call of each in turn, so that drift meets all alike."""
    for run in variants.values():
        run()
    times: dict[Any, list[float]] = {name: [] for name in variants}
    deadline = perf_counter() + seconds
    while perf_counter() < deadline or min(map(len, times.values())) < 5:
        for name, run in variants.items():
            start = perf_counter()
            run()
            times[name].append(perf_counter() - start)
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}


def write(measurements: list[Measurement]) -> list[Path]:
    """Merge measurements into the user's tables and let running programs select anew."""
    date = datetime.date.today().isoformat()
    entries: dict[tuple[str, str], dict[Spec, tuned.Entry]] = {}
    for m in measurements:
        entry = tuned.Entry(m.target, tuned.describe(m.config), round(m.ratio, 3), torch.__version__, date)
        entries.setdefault((m.spec.op, m.spec.device), {})[m.spec] = entry
    paths = [tuned.record(op, device, found) for (op, device), found in entries.items()]
    forget()
    return paths
