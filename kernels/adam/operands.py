"""Random operands for an AdamSpec, as `run` takes them: for tuning and benchmarks."""

from __future__ import annotations

import torch

from . import blockwise
from .lists import Hyper, Lists
from .spec import MIXED, AdamSpec


def operands(spec: AdamSpec, seed: int = 0) -> tuple[Lists, Hyper]:
    """Parameters of equal size (the last may be larger), normally distributed, as after some steps."""
    # On "meta" nothing is drawn: operands have a shape, and no values.
    generator = None if spec.device == "meta" else torch.Generator(spec.device).manual_seed(seed)
    count = max(1, spec.tensors)
    sizes = [spec.numel // count] * (count - 1)
    sizes.append(spec.numel - sum(sizes))

    def lists(dtype: str, positive: bool = False) -> list[torch.Tensor]:
        made = [torch.randn(n, generator=generator, device=spec.device) for n in sizes]
        dtypes = ("float32", "bfloat16", "float16") if dtype == MIXED else (dtype,)
        return [(t.abs() if positive else t).to(getattr(torch, dtypes[i % len(dtypes)])) for i, t in enumerate(made)]

    in_8_bits = spec.state_dtype == "uint8"
    moments = [lists("float32" if in_8_bits else spec.state_dtype, positive) for positive in (False, True)]
    scales: list[list[torch.Tensor]] = [[], []]
    if in_8_bits:
        for k, signed in enumerate((True, False)):
            encoded = [blockwise.encoded(values, signed) for values in moments[k]]
            moments[k], scales[k] = [codes for codes, _ in encoded], [scale for _, scale in encoded]
    return Lists(
        params=lists(spec.dtype),
        grads=lists(spec.dtype),
        exp_avgs=moments[0],
        exp_avg_sqs=moments[1],
        max_exp_avg_sqs=lists(spec.state_dtype, positive=True) if spec.amsgrad else [],
        state_steps=[torch.tensor(3.0, device=spec.device) for _ in sizes],
        masters=lists("float32") if spec.master else [],
        emas=lists("float32") if spec.ema else [],
        exp_avg_scales=scales[0],
        exp_avg_sq_scales=scales[1],
    ), Hyper(
        lr=1e-3,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.0,
        decoupled=False,
        ema_decay=0.999,
        seed=seed if spec.stochastic else None,
    )
