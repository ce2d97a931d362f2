"""Convolution, bias and activation together, forward and backward: torch's three ops, and accelops.functional's one.

One layer of each kind that networks have, with few images. Forward is timed without gradients; training is the forward and
autograd's walk back to the gradients of input, weight and bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from accelops import functional
from accelops.dispatch.conv import ACTIVATION_FUNCTIONS
from accelops.dispatch.select import implementation
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.timing import Variant, captured, copies, interleaved

from .rows import Job, Row, Setting, ran, row, selections_of
from .suites import Layer, channels_last

BATCH = 8
LAYERS = (
    (Layer(3, 64, 224, 7, 2, bias=True), "relu"),
    (Layer(64, 64, 56, 3, bias=True), "relu"),
    (Layer(64, 256, 56, 1, bias=True), "relu"),
    (Layer(128, 128, 56, 3, groups=32, bias=True), "relu"),
    (Layer(240, 240, 28, 5, groups=240, bias=True), "silu"),
    (Layer(96, 96, 56, 7, groups=96, bias=True), "gelu"),
)
WALKS = ("forward", "training")


def specs(setting: Setting) -> list[ConvSpec]:
    """What the suite asks dispatch for, in both memory formats."""
    forwards = [_spec(layer, activation, setting) for layer, activation in LAYERS]
    each = [replace(s, direction=d, bias=d != "dgrad") for s in forwards for d in DIRECTIONS]
    return [spec for s in each for spec in (s, channels_last(s)) if spec is not None]


def _spec(layer: Layer, activation: str, setting: Setting) -> ConvSpec:
    spec = layer.spec(setting.batch or BATCH, "fprop")
    return replace(spec, activation=activation, dtype=setting.dtype, device=setting.device)


def jobs(setting: Setting) -> list[Job]:
    def job(layer: Layer, activation: str, walk: str) -> Job:
        spec, name = _spec(layer, activation, setting), f"{layer.name} {activation}"
        return Job(f"{name} {walk}", lambda _ceilings, s: _measure(name, spec, walk, setting, s))

    return [job(layer, activation, walk) for layer, activation in LAYERS for walk in WALKS]


def _measure(name: str, contiguous: ConvSpec, walk: str, setting: Setting, seconds: float) -> Row:
    variants: dict[str, Variant] = {}
    what_ran = []
    for spec in filter(None, (contiguous, channels_last(contiguous))):
        form = "" if spec is contiguous else f" {spec.memory_format}"
        sides = {"torch": _by_torch, "accelops": partial(_by_accelops, _target(spec, setting))}
        what_ran += ran(f"accelops{form}", selections_of(Variant(call(spec, sides["accelops"], walk))))
        for side, function in sides.items():
            if setting.device == "cuda":
                variants[side + form] = captured([call(spec, function, walk, i) for i in range(copies(spec.bytes))])
            else:
                variants[side + form] = Variant(call(spec, function, walk))
    return row(name, walk, interleaved(variants, seconds, setting.device), what_ran)


def _target(spec: ConvSpec, setting: Setting) -> str | None:
    """The target that was asked for, wherever it supports all directions."""
    asked = setting.target
    directions = [replace(spec, direction=d, bias=d != "dgrad") for d in DIRECTIONS]
    return None if asked is None or any(implementation("conv", asked).unsupported(s) for s in directions) else asked


Function = Callable[[ConvSpec, Tensor, Tensor, Tensor], Tensor]


def call(spec: ConvSpec, function: Function, walk: str, seed: int = 0) -> Callable[[], Any]:
    """`function` without gradients, or with the walk back through it."""
    given = operands(spec, seed)
    if walk == "forward":
        return partial(function, spec, *given)
    leaves = [t.requires_grad_() for t in given]  # type: ignore[union-attr]
    grad_output = operands(replace(spec, direction="dgrad"), seed)[0]
    return lambda: torch.autograd.grad(function(spec, *leaves), leaves, grad_output)


def _by_torch(spec: ConvSpec, *given: Tensor) -> Tensor:
    convolution = getattr(torch.nn.functional, f"conv{spec.ndim}d")
    return ACTIVATION_FUNCTIONS[spec.activation](
        convolution(*given, spec.stride, spec.padding, spec.dilation, spec.groups)
    )


def _by_accelops(target: str | None, spec: ConvSpec, *given: Tensor) -> Tensor:
    convolution = getattr(functional, f"conv{spec.ndim}d")
    options = {"activation": spec.activation, "target": target}
    return convolution(*given, spec.stride, spec.padding, spec.dilation, spec.groups, **options)
