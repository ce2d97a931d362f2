"""Optimizer steps on whole parameter lists: torch.optim.Adam and AdamW as scripts create them, as they are and rerouted.

Bytes: 28 a parameter for fp32 Adam (parameter, gradient and two moments read, all but the gradient written).
All optimizers of a list step the same parameters and gradients, each with state of its own. DeepSpeed's CPUAdam takes part
where it is installed.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

import accelops.optim
from accelops.dispatch import reroute
from accelops.dispatch.select import use
from accelops.timing import Variant, interleaved

from .roofline import Ceilings
from .rows import Job, Row, Setting, ran, row, selections_of
from .suites import resnet50_parameters

PEER = "DeepSpeed CPUAdam"


@dataclass(frozen=True)
class Problem:
    """A list of parameter shapes, the optimizer (a name in torch.optim) and its options; `beyond` has options that only
    accelops.optim knows, for which its optimizer is timed against torch's without them."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    optimizer: str = "Adam"
    options: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    peer: bool = True  # the peer has neither amsgrad nor bf16 state
    beyond: dict[str, Any] = field(default_factory=dict)


def problems(device: str) -> list[Problem]:
    resnet50 = resnet50_parameters()
    numel = sum(torch.Size(shape).numel() for shape in resnet50)
    one = ((10**9,),)
    large = [
        Problem("one tensor of 1e9", one),
        Problem("one tensor of 1e9, bf16, fp32 masters", one, dtype=torch.bfloat16, beyond={"master_weights": True}),
        Problem("one tensor of 1e9, bf16, 8-bit state", one, dtype=torch.bfloat16, beyond={"state_bits": 8}),
    ]
    return [
        Problem("ResNet-50", resnet50),
        Problem("ResNet-50, AdamW", resnet50, "AdamW", {"weight_decay": 0.05}),
        Problem("ResNet-50, amsgrad", resnet50, options={"amsgrad": True}, peer=False),
        Problem("ResNet-50, bf16", resnet50, dtype=torch.bfloat16, peer=False),
        Problem("one tensor of 25.6 M", ((numel,),)),
        Problem("2000 tensors of 1000", ((1000,),) * 2000),
        *(large if device == "cuda" else ()),
    ]


@cache
def missing_peer() -> str | None:
    """Why DeepSpeed's CPUAdam is not measured, None where it is."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it greets on stdout, which belongs to --json
            from deepspeed.ops.adam import DeepSpeedCPUAdam

            DeepSpeedCPUAdam([torch.zeros(1, requires_grad=True)])
    except Exception as error:  # it compiles itself on first use, and that can fail in any way
        return f"{PEER} is left out: {type(error).__name__}: {error}"
    return None


def jobs(setting: Setting) -> list[Job]:
    """A Job for each Problem."""
    return [Job(p.name, lambda ceilings, s, p=p: _measure(p, setting, ceilings, s)) for p in problems(setting.device)]


def _measure(problem: Problem, setting: Setting, ceilings: Ceilings, seconds: float) -> Row:
    generator = torch.Generator(setting.device).manual_seed(0)

    def random(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, device=setting.device).to(problem.dtype)

    parameters = [random(shape).requires_grad_() for shape in problem.shapes]
    for p in parameters:
        p.grad = random(p.shape)
    optimizer = getattr(torch.optim, problem.optimizer)
    ours = getattr(accelops.optim if problem.beyond else torch.optim, problem.optimizer)
    variants = {
        "torch": Variant(_step(optimizer, parameters, problem.options)),
        "torch fused": Variant(_step(optimizer, parameters, {**problem.options, "fused": True})),
        "accelops": Variant(
            _step(ours, parameters, problem.options | problem.beyond), lambda: _rerouted(setting.target)
        ),
    }
    if problem.peer and setting.device == "cpu" and missing_peer() is None:
        variants[PEER] = Variant(_peer_step(problem, parameters))
    selections = selections_of(variants["accelops"])
    times = interleaved(variants, seconds, setting.device)
    spec = selections[0].spec if len(selections) == 1 else None
    return row(problem.name, "step", times, ran("accelops", selections), spec, ceilings)


@contextlib.contextmanager
def _rerouted(target: str | None) -> Iterator[None]:
    with reroute.enabled(ops=("adam",)), use(target) if target else contextlib.nullcontext():
        yield


def _step(
    optimizer: type[torch.optim.Optimizer], parameters: list[Tensor], options: dict[str, Any]
) -> Callable[[], object]:
    return optimizer(parameters, lr=1e-6, **options).step


def _peer_step(problem: Problem, parameters: list[Tensor]) -> Callable[[], object]:
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    with contextlib.redirect_stdout(sys.stderr):
        return DeepSpeedCPUAdam(
            parameters, lr=1e-6, adamw_mode=problem.optimizer == "AdamW", fp32_optimizer_states=True, **problem.options
        ).step
