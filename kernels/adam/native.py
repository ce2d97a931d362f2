"""Runs the native Adam steps (kernels/adam/reference.cpp and cpu.cpp) on lists of torch tensors."""

from __future__ import annotations

import torch
from torch.autograd.graph import increment_version

from .lists import Hyper, Lists
from .spec import AdamSpec


def unsupported(spec: AdamSpec, dtypes: tuple[str, ...]) -> list[str]:
    reasons = []
    if spec.device != "cpu":
        reasons.append(f"runs on cpu tensors, not on {spec.device}")
    if spec.dtype not in dtypes:
        reasons.append(f"dtype {spec.dtype}: only {', '.join(dtypes)}")
    if spec.state_dtype != spec.dtype and not (spec.dtype in ("bfloat16", "float16") and spec.state_dtype == "float32"):
        reasons.append(f"state_dtype {spec.state_dtype}: expected {spec.dtype}, or float32 for half precision")
    if spec.stochastic:
        reasons.append("stochastic rounding")
    return reasons


def run(target: str, spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
    """Step in place: parameters, state and step counts. Raises the version counters of the parameters, so that a
    backward through their old values is refused, as after torch's own in-place ops."""
    ordered, copied = lists.in_one_order() if lists.table.irregular else (lists, [])
    increment_version(lists.params)
    ordered.table.step(
        target,
        hyper.lr,
        hyper.beta1,
        hyper.beta2,
        hyper.eps,
        hyper.weight_decay,
        hyper.decoupled,
        -hyper.grad_factor if hyper.maximize else hyper.grad_factor,
        hyper.ema_decay,
        torch.get_num_threads(),
    )
    for original, copy in copied:
        original.copy_(copy)


def grad_norm(lists: Lists) -> float:
    """The 2-norm of all gradients together, summed in an order that does not depend on the number of threads."""
    if lists.table.irregular:
        lists, _ = lists.in_one_order()
    target = "reference" if lists.table.dtype in ("float64", "complex128") else "cpu"
    return lists.table.square_sum(target, torch.get_num_threads()) ** 0.5
