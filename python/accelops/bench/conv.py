"""Convolution layers: torch's own functions, as they are and rerouted, in both memory formats.

The accelops side is what a training script gets from accelops.enable(): the very same call of torch. Forward is
torch.nn.functional's; dgrad and wgrad are aten::convolution_backward asked for one gradient, as autograd calls it. On a GPU
calls are replayed from graphs, so that the kernels are compared; what a launch costs is the suite "overhead"'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F

from accelops.dispatch import reroute
from accelops.dispatch.select import implementation, use
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import ConvSpec
from accelops.timing import Variant, captured, copies, interleaved

from .roofline import Ceilings
from .rows import Job, Row, Setting, ran, row, selections_of
from .suites import Case, channels_last, conv_cases


def jobs(network: str, setting: Setting) -> list[Job]:
    """A Job for each Case of a conv suite."""

    def job(case: Case) -> Job:
        case = replace(case, spec=replace(case.spec, device=setting.device, dtype=setting.dtype))
        return Job(f"{case.name} {case.spec.direction}", lambda ceilings, s: _measure(case, setting, ceilings, s))

    return [job(case) for case in conv_cases(network, setting.batch)]


def _measure(case: Case, setting: Setting, ceilings: Ceilings, seconds: float) -> Row:
    variants: dict[str, Variant] = {}
    what_ran = []
    for spec in filter(None, (case.spec, channels_last(case.spec))):
        name = "" if spec is case.spec else f" {spec.memory_format}"

        def context(spec: ConvSpec = spec) -> AbstractContextManager[None]:
            return rerouted(spec, setting.target)

        what_ran += ran(f"accelops{name}", selections_of(Variant(call(spec), context)))
        if setting.device == "cuda":
            calls = [call(spec, seed) for seed in range(copies(spec.bytes))]
            variants[f"torch{name}"], variants[f"accelops{name}"] = captured(calls), captured(calls, context)
        else:
            run = call(spec)
            variants[f"torch{name}"], variants[f"accelops{name}"] = Variant(run), Variant(run, context)
    times = interleaved(variants, seconds, setting.device)
    return row(case.name, case.spec.direction, times, what_ran, case.spec, ceilings, case.multiplicity)


@contextmanager
def rerouted(spec: ConvSpec, target: str | None) -> Iterator[None]:
    """accelops.enabled(), and `target` by name where it was asked for and supports `spec`."""
    asked = target is not None and not implementation("conv", target).unsupported(spec)
    with reroute.enabled(ops=("conv",)), use(target) if asked else nullcontext():
        yield


def call(spec: ConvSpec, seed: int = 0) -> Callable[[], object]:
    """torch's own call for a Spec, on random operands."""
    input, weight, bias = operands(replace(spec, direction="fprop"), seed)
    output_padding = spec.output_padding or (0,) * spec.ndim
    if spec.direction == "fprop":
        if spec.transposed:
            function = getattr(F, f"conv_transpose{spec.ndim}d")
            rest = (spec.stride, spec.padding, output_padding, spec.groups, spec.dilation)
        else:
            function = getattr(F, f"conv{spec.ndim}d")
            rest = (spec.stride, spec.padding, spec.dilation, spec.groups)
        return lambda: function(input, weight, bias, *rest)
    grad_output = operands(replace(spec, direction="dgrad"), seed)[0]
    mask = (spec.direction == "dgrad", spec.direction == "wgrad", spec.direction == "wgrad" and spec.bias)
    bias_sizes = [spec.out_channels] if spec.bias else None
    parameters = (spec.stride, spec.padding, spec.dilation, spec.transposed, output_padding, spec.groups, mask)
    backward = torch.ops.aten.convolution_backward.default
    return lambda: backward(grad_output, input, weight, bias_sizes, *parameters)
