"""Adam on TPUs: one program for all parameters together (lowering.py), run by way of torch_xla or torch_tpu, or by jax itself
on the CPU. It returns new arrays, which are then written over the old ones: a compiler sees that these can share memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from accelops.targets import xla

from ..blockwise import in_memory
from ..lists import Hyper, Lists
from ..spec import MIXED, AdamSpec
from .lowering import Flags, Numbers, State, constants, lowered

NAMES = ("float32", "bfloat16", "float16", "complex64", MIXED)


@dataclass(frozen=True)
class Config:
    """Nothing to choose: memory sets the pace."""


def unsupported(spec: AdamSpec) -> list[str]:
    reasons = []
    if spec.device not in xla.devices():
        reasons.append(f"runs on {xla.devices()[0]} tensors, not on {spec.device}")
    if spec.dtype not in NAMES:
        reasons.append(f"dtype {spec.dtype}: only {', '.join(NAMES)}")
    elif spec.state_dtype not in (spec.dtype, "float32"):
        reasons.append(f"state_dtype {spec.state_dtype}: expected {spec.dtype} or float32")
    return reasons


def configs(spec: AdamSpec) -> list[Config]:
    return [Config()]


def heuristic(spec: AdamSpec) -> tuple[None, str]:
    """Should it ever take a step, dispatch/adam.py has to know: _may_be_ours."""
    return None, "no TPU has measured it yet; accelops.tune measures it on this one"


def run(config: Config, spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
    """Step in place: parameters, state and step counts. Raises the version counters of the parameters, so that a
    backward through their old values is refused, as after torch's own in-place ops."""
    if not lists.params:
        return
    counted_here = lists.description.steps_on_device
    if hyper.found_inf is not None and not counted_here:
        if hyper.found_inf.item():  # the only wait: the host has to know whether to count
            return
        hyper = replace(hyper, found_inf=None)
    ordered, copied = lists.in_one_order() if lists.description.irregular else (lists, [])
    increment_version(lists.params)
    _step(ordered, hyper, counted_here)
    for original, copy in copied:
        original.copy_(copy)


def _step(lists: Lists, hyper: Hyper, counted_here: bool) -> None:
    device, counts = lists.params[0].device, None
    if not counted_here:
        torch._foreach_add_(list(lists.state_steps), 1.0)
        counts = torch.stack([step.float().reshape(()) for step in lists.state_steps]).to(device)
        lists = replace(lists, state_steps=())
    old = State(*(_as_in_memory(getattr(lists, name)) for name in State._fields))
    flags = Flags(
        decay=hyper.weight_decay != 0,
        decoupled=hyper.decoupled,
        amsgrad=bool(lists.max_exp_avg_sqs),
        guarded=hyper.found_inf is not None,
        stochastic=hyper.seed is not None,
    )
    narrow = old._replace(state_steps=[step.float() for step in old.state_steps])  # a TPU has no fp64
    new = _program(device.type, flags)(narrow, _as_in_memory(lists.grads), _numbers(hyper, device), counts)
    for originals, results in zip(old, new, strict=True):
        if originals:
            torch._foreach_copy_(originals, results)


@lru_cache(maxsize=64)
def _program(device: str, flags: Flags) -> Callable[..., Any]:
    return xla.program(device, lowered(flags))


def _as_in_memory(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Real tensors whose elements follow each other in memory; of a parameter they all have the same order."""
    reals = (torch.view_as_real(t.detach()) if t.is_complex() else t.detach() for t in tensors)
    return [t if t.is_contiguous() else in_memory(t) for t in reals]


def _numbers(hyper: Hyper, device: torch.device) -> Numbers:
    factor = -hyper.grad_factor if hyper.maximize else hyper.grad_factor
    given = (hyper.lr, factor, hyper.grad_scale, hyper.found_inf)
    scalars = (_there(x, device) if isinstance(x, Tensor) else _kept(x or 0.0, device) for x in given)
    lr, factor, scale, found_inf = scalars
    fixed = constants(hyper.beta1, hyper.beta2, hyper.eps, hyper.weight_decay, hyper.ema_decay)
    seed = hyper.seed or 0
    halves = tuple((half ^ 1 << 31) - (1 << 31) for half in (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    return Numbers(
        lr,
        factor,
        scale if hyper.grad_scale is not None else _kept(1.0, device),
        found_inf,
        _kept(fixed, device),
        _kept(halves, device, torch.int32),
    )


def _there(number: Tensor, device: torch.device) -> Tensor:
    return number.detach().to(device, torch.float32).reshape(())


@lru_cache(maxsize=256)
def _kept(numbers: Any, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """On the device; the same numbers come again with every step."""
    return torch.tensor(numbers, dtype=dtype, device="cpu").to(device)
