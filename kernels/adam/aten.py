"""torch's own Adam as an implementation: the functional that torch.optim had before anyone replaced it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.optim.adam as torch_adam
from torch import Tensor
from torch.autograd.graph import increment_version

from .blockwise import decoded, encode_
from .lists import Hyper, Lists
from .rounding import round_
from .spec import AdamSpec

functional = torch_adam.adam


@dataclass(frozen=True)
class Config:
    """Which of torch's implementations."""

    fused: bool = False


def unsupported(spec: AdamSpec) -> list[str]:
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
    """The step from torch's ops, on any device: scaling, master copies, averages, moments in 8 bits or of another dtype
    than their parameter's, and stochastic rounding are passes of their own."""
    if hyper.found_inf is not None and hyper.found_inf.item():
        return
    exp_avgs, exp_avg_sqs = _moments(lists)
    stepped = [
        p.detach() if p.dtype == m.dtype and (hyper.seed is None or p.dtype != torch.bfloat16) else p.detach().float()
        for p, m in zip(lists.masters or lists.params, exp_avgs, strict=True)
    ]
    moments = [[m.to(p.dtype) for m, p in zip(of, stepped, strict=True)] for of in (exp_avgs, exp_avg_sqs)]
    largest = [m.to(p.dtype) for m, p in zip(lists.max_exp_avg_sqs, stepped, strict=False)]
    on_cpu = all(p.is_cpu for p in stepped)
    capturable = not on_cpu and not any(step.is_cpu for step in lists.state_steps)
    functional(
        stepped,
        _scaled([g.to(p.dtype) for g, p in zip(lists.grads, stepped, strict=True)], hyper),
        *moments,
        largest,
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
    _store_moments(lists, moments, largest)
    _store_parameters(lists, stepped, hyper)


def _moments(lists: Lists) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    if not lists.exp_avg_scales:
        return lists.exp_avgs, lists.exp_avg_sqs
    m = [decoded(codes, scales, True) for codes, scales in zip(lists.exp_avgs, lists.exp_avg_scales, strict=True)]
    v = [
        decoded(codes, scales, False) for codes, scales in zip(lists.exp_avg_sqs, lists.exp_avg_sq_scales, strict=True)
    ]
    return m, v


def _store_moments(lists: Lists, moments: list[list[Tensor]], largest: list[Tensor]) -> None:
    if lists.exp_avg_scales:
        for k in range(len(lists.params)):
            encode_(lists.exp_avgs[k], lists.exp_avg_scales[k], moments[0][k], True)
            encode_(lists.exp_avg_sqs[k], lists.exp_avg_sq_scales[k], moments[1][k], False)
        return
    for kept, made in ((lists.exp_avgs, moments[0]), (lists.exp_avg_sqs, moments[1]), (lists.max_exp_avg_sqs, largest)):
        for original, m in zip(kept, made, strict=True):
            if m is not original:
                original.copy_(m)


def _store_parameters(lists: Lists, stepped: list[Tensor], hyper: Hyper) -> None:
    for row, (param, result) in enumerate(zip(lists.params, stepped, strict=True)):
        if hyper.seed is not None and param.dtype == torch.bfloat16:
            round_(param.detach(), result, hyper.seed, row, lists.state_steps[row])
        elif lists.masters or result.dtype != param.dtype:
            param.detach().copy_(result)
    for master, result in zip(lists.masters, stepped, strict=False):
        if result.dtype != master.dtype:
            master.copy_(result)
    for ema, result in zip(lists.emas, stepped, strict=False):
        ema.lerp_(result.to(ema.dtype), 1 - hyper.ema_decay)


def _scaled(grads: list[Tensor], hyper: Hyper) -> list[Tensor]:
    factor = hyper.grad_factor if hyper.grad_scale is None else hyper.grad_factor / hyper.grad_scale.reshape(())
    if not grads or (not isinstance(factor, Tensor) and factor == 1):
        return grads
    return torch._foreach_mul(grads, factor)
