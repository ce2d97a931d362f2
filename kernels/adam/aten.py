"""torch's own Adam as an implementation: the functional that torch.optim had before anyone replaced it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.optim.adam as torch_adam
from torch import Tensor
from torch.autograd.graph import increment_version

from .lists import Hyper, Lists
from .spec import AdamSpec

functional = torch_adam.adam


@dataclass(frozen=True)
class Config:
    """Which of torch's implementations."""

    fused: bool = False


def unsupported(spec: AdamSpec) -> list[str]:
    if spec.state_dtype != spec.dtype and not spec.master:
        return [f"state_dtype {spec.state_dtype}: torch keeps the moments in the parameters' {spec.dtype}"]
    return []


def configs(spec: AdamSpec) -> list[Config]:
    return [Config(fused=False), Config(fused=True)]


def run(config: Config, spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
    """Step in place."""
    if config.fused and lists.table.irregular:
        # torch's fused kernel walks memory without a look at strides: wrong values (pytorch #106951, #110758).
        ordered, copied = lists.in_one_order()
        compose(ordered, hyper, fused=True)
        for original, copy in copied:
            original.copy_(copy)
    else:
        compose(lists, hyper, config.fused)
    increment_version(lists.params)


def compose(lists: Lists, hyper: Hyper, fused: bool = False) -> None:
    """The step from torch's ops, on any device: scaling, master copies and averages are passes of their own."""
    if hyper.found_inf is not None and hyper.found_inf.item():
        return
    stepped: list[Tensor] = [p.detach() for p in lists.masters or lists.params]
    grads = _scaled([g.to(p.dtype) for g, p in zip(lists.grads, stepped, strict=True)], hyper)
    on_cpu = all(p.is_cpu for p in stepped)
    capturable = not on_cpu and not any(step.is_cpu for step in lists.state_steps)
    functional(
        stepped,
        grads,
        list(lists.exp_avgs),
        list(lists.exp_avg_sqs),
        list(lists.max_exp_avg_sqs),
        list(lists.state_steps),
        amsgrad=bool(lists.max_exp_avg_sqs),
        has_complex=any(map(torch.is_complex, stepped)),
        beta1=hyper.beta1,
        beta2=hyper.beta2,
        lr=hyper.lr,
        weight_decay=hyper.weight_decay,
        eps=hyper.eps,
        maximize=hyper.maximize,
        foreach=not on_cpu and not fused and (capturable or not isinstance(hyper.lr, Tensor)),
        capturable=capturable,
        fused=fused,
        decoupled_weight_decay=hyper.decoupled,
    )
    for param, master in zip(lists.params, lists.masters, strict=False):
        param.detach().copy_(master)
    for ema, param in zip(lists.emas, stepped, strict=False):
        ema.lerp_(param.to(ema.dtype), 1 - hyper.ema_decay)


def _scaled(grads: list[Tensor], hyper: Hyper) -> list[Tensor]:
    factor = hyper.grad_factor if hyper.grad_scale is None else hyper.grad_factor / hyper.grad_scale.reshape(())
    if not grads or (not isinstance(factor, Tensor) and factor == 1):
        return grads
    return torch._foreach_mul(grads, factor)
