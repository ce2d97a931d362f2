"""Convolution layers: torch's own functions, as they are and rerouted, in both memory formats.

The accelops side is what a training script gets from accelops.enable(): the very same call of torch. Forward is
torch.nn.functional's; dgrad and wgrad are aten::convolution_backward asked for one gradient, as autograd calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F

from accelops.dispatch import reroute
from accelops.dispatch.select import implementation, use
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import ConvSpec

from .roofline import Ceilings
from .rows import Job, Row, ran, row, selections_of
from .suites import Case, channels_last, conv_cases
from .timing import Variant, interleaved


def jobs(network: str, batch: int | None = None, target: str | None = None) -> list[Job]:
    """A Job for each Case of a conv suite. `target` asks for one by name, wherever it supports the Spec."""

    def job(case: Case) -> Job:
        return Job(f"{case.name} {case.spec.direction}", lambda ceilings, s: _measure(case, target, ceilings, s))

    return [job(case) for case in conv_cases(network, batch)]


def _measure(case: Case, target: str | None, ceilings: Ceilings, seconds: float) -> Row:
    variants: dict[str, Variant] = {}
    what_ran = []
    for spec in filter(None, (case.spec, channels_last(case.spec))):
        run = call(spec)
        name = "" if spec is case.spec else f" {spec.memory_format}"
        ours = Variant(run, lambda spec=spec: rerouted(spec, target))
        variants[f"torch{name}"] = Variant(run)
        variants[f"accelops{name}"] = ours
        what_ran += ran(f"accelops{name}", selections_of(ours))
    times = interleaved(variants, seconds)
    return row(case.name, case.spec.direction, times, what_ran, case.spec, ceilings, case.multiplicity)


@contextmanager
def rerouted(spec: ConvSpec, target: str | None) -> Iterator[None]:
    """accelops.enabled(), and `target` by name where it was asked for and supports `spec`."""
    asked = target is not None and not implementation("conv", target).unsupported(spec)
    with reroute.enabled(ops=("conv",)), use(target) if asked else nullcontext():
        yield


def call(spec: ConvSpec) -> Callable[[], object]:
    """torch's own call for a Spec, on random operands."""
    input, weight, bias = operands(replace(spec, direction="fprop"))
    output_padding = spec.output_padding or (0,) * spec.ndim
    if spec.direction == "fprop":
        if spec.transposed:
            function = getattr(F, f"conv_transpose{spec.ndim}d")
            rest = (spec.stride, spec.padding, output_padding, spec.groups, spec.dilation)
        else:
            function = getattr(F, f"conv{spec.ndim}d")
            rest = (spec.stride, spec.padding, spec.dilation, spec.groups)
        return lambda: function(input, weight, bias, *rest)
    grad_output = operands(replace(spec, direction="dgrad"))[0]
    mask = (spec.direction == "dgrad", spec.direction == "wgrad", spec.direction == "wgrad" and spec.bias)
    bias_sizes = [spec.out_channels] if spec.bias else None
    parameters = (spec.stride, spec.padding, spec.dilation, spec.transposed, output_padding, spec.groups, mask)
    backward = torch.ops.aten.convolution_backward.default
    return lambda: backward(grad_output, input, weight, bias_sizes, *parameters)
