"""accelops.tune: measure every candidate on the Specs that a model really runs, and write the user's tuned table.

A candidate replaces torch's kernel only if it is faster by more than the noise (MARGIN). Tuning never happens unasked.
"""

from __future__ import annotations

import datetime
import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from accelops import timing
from accelops.judge import Judge
from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.spec import Spec
from accelops.targets import KernelFailed, emulated, unavailable

from . import reroute, tuned
from .select import bound, candidates, forget, implementation, observed

MARGIN = 1.03

Candidate = tuple[str, Any]  # target and Config


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
    """The distinct Specs that one forward and backward of `model` asks dispatch for, and Adam's step over its parameters."""
    with observed() as seen, reroute.enabled(), torch.enable_grad():
        output = model(*inputs)
        scalar = (loss or _sum_of_first_tensor)(output)
        parameters = [p for p in model.parameters() if p.requires_grad]
        if parameters and scalar.requires_grad:
            torch.autograd.grad(scalar, parameters, allow_unused=True)
    return [*sorted(seen, key=Spec.to_json), *_adam_specs(parameters)]


def _adam_specs(parameters: Sequence[Tensor]) -> list[Spec]:
    """For each device and dtype; the moments in the parameters' dtype, as torch has them."""
    kinds: dict[tuple[str, str], list[Tensor]] = {}
    for p in parameters:
        kinds.setdefault((p.device.type, str(p.dtype).removeprefix("torch.")), []).append(p)
    return [
        AdamSpec(sum(map(Tensor.numel, part)), len(part), dtype, dtype, device=device)
        for (device, dtype), part in kinds.items()
    ]


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
    """Time all candidates on random operands for about `seconds`, interleaved; None where only torch can serve.

    On a GPU convolutions are compared replayed from graphs, over operands that its cache does not hold; the fastest must
    then also not be slower than torch when calls are launched one by one, as a script does that uses no graphs."""
    modules = {target: implementation(spec.op, target) for target in candidates(spec.op) if _competes(target, spec)}
    if len(modules) < 2:
        return None
    variants = {(target, config): module for target, module in modules.items() for config in module.configs(spec)}
    replayed = spec.device == "cuda" and spec.op == "conv"  # the other ops are one launch a step
    times = _medians(spec, variants, seconds, replayed)
    torchs = min(t for (target, _), t in times.items() if target == "aten")
    ratios = {target: torchs / min(t for (other, _), t in times.items() if other == target) for target, _ in times}
    best = _fastest_that_is_right(spec, variants, times)
    ratio = torchs / times[best]
    if replayed and best[0] != "aten":
        pair = {name: module for name, module in variants.items() if name == best or name[0] == "aten"}
        singly = _medians(spec, pair, seconds / 4, replayed=False)
        if singly[best] > min(t for name, t in singly.items() if name != best):
            ratio = 1.0
    if best[0] == "aten" or ratio < MARGIN:
        return Measurement(spec, "aten", modules["aten"].configs(spec)[0], 1.0, ratios)
    return Measurement(spec, *best, ratio, ratios)


def _fastest_that_is_right(
    spec: Spec, candidates: dict[Candidate, ModuleType], times: dict[Candidate, float]
) -> Candidate:
    """By accelops.judge: a compiler may have made a wrong kernel of a Config that is right elsewhere."""
    judge = None
    for target, config in sorted(times, key=times.__getitem__):
        if target == "aten":
            break
        judge = judge or Judge(spec, random.randrange(1 << 30))
        share = judge.share(candidates[target, config], config)
        if share <= 1:
            break
        warnings.warn(
            f"accelops.tune: {config} is left out, it makes {share:.3g} times the error allowed", stacklevel=3
        )
    return target, config


def _competes(target: str, spec: Spec) -> bool:
    if target == "reference" or unavailable(target) or emulated(target):
        return False
    return not implementation(spec.op, target).unsupported(spec)


def _medians(
    spec: Spec, candidates: dict[Candidate, ModuleType], seconds: float, replayed: bool
) -> dict[Candidate, float]:
    """Median seconds of a call of each candidate, without those whose kernels fail."""
    draw = import_module(f"accelops.kernels.{spec.op}.operands").operands
    sets = [draw(spec, seed) for seed in range(timing.copies(spec.bytes) if replayed else 1)]
    variants: dict[Candidate, timing.Variant] = {}
    for (target, config), module in candidates.items():
        run = bound(module, config, spec)
        runs = [partial(_run, run, operands) for operands in sets]
        try:
            runs[0]()
            variants[target, config] = timing.captured(runs) if replayed else timing.Variant(runs[0])
        except KernelFailed as failure:
            warnings.warn(f"accelops.tune: {config} is left out, it failed: {failure}", stacklevel=2)
    times = timing.interleaved(variants, seconds, spec.device)
    return {name: median(values) for name, values in times.items()}


def _run(run: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
    """Adam's lists are new at each step, so that what is known of them must be found out again."""
    return run(*[replace(o) if is_dataclass(o) else o for o in operands])


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
