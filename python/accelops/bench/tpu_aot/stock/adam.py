"""torch.optim.Adam, not fused, as each way onto a TPU runs it: torch_xla traces the step of all parameters into one graph,
torch_tpu in eager mode launches each op of each parameter by itself. Hyperparameters are torch's defaults."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from accelops.kernels.adam.spec import AdamSpec

from ..launch import Launch

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def launches(
    spec: AdamSpec, mesh: Mesh, eager: bool = False, shapes: Sequence[Sequence[int]] | None = None
) -> tuple[Launch, ...]:
    """One graph, or with `eager` the ops of each parameter. `shapes` of the parameters; without, they are flat and equal.

    Raises ValueError for what torch's step lacks: masters, averages, 8 bits, stochastic rounding."""
    if spec.master or spec.ema or spec.stochastic or spec.amsgrad or spec.dtype != spec.state_dtype:
        raise ValueError(
            "the stock step of torch.optim.Adam is lowered for parameters and moments of one dtype, no more"
        )
    sizes = shapes if shapes is not None else [(spec.numel // max(1, spec.tensors),)] * spec.tensors
    parameters = [jax.ShapeDtypeStruct(tuple(size), jnp.dtype(spec.dtype)) for size in sizes]
    if eager:
        return tuple(launch for parameter in parameters for launch in _ops(parameter))
    step = jax.ShapeDtypeStruct((), jnp.float32)
    return (Launch(_graph, (parameters, parameters, parameters, parameters, step), donate=(0, 2, 3)),)


def _graph(
    params: list[jax.Array], grads: list[jax.Array], ms: list[jax.Array], vs: list[jax.Array], step: jax.Array
) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    stepped = [_step(*one, step) for one in zip(params, grads, ms, vs, strict=True)]
    return [p for p, _, _ in stepped], [m for _, m, _ in stepped], [v for _, _, v in stepped]


def _step(
    p: jax.Array, g: jax.Array, m: jax.Array, v: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    m = m + (1 - BETA1) * (g - m)
    v = BETA2 * v + (1 - BETA2) * g * g
    correction1, correction2 = 1 - BETA1**step, 1 - BETA2**step
    denominator = jnp.sqrt(v) / jnp.sqrt(correction2) + EPS
    return (p - LR / correction1 * m / denominator).astype(p.dtype), m.astype(p.dtype), v.astype(p.dtype)


def _ops(parameter: jax.ShapeDtypeStruct) -> tuple[Launch, ...]:
    """In torch's order (torch/optim/adam.py, _single_tensor_adam). The step is counted on the host."""
    one, two, three = (parameter,), (parameter,) * 2, (parameter,) * 3
    return (
        Launch(lambda m, g: m + (1 - BETA1) * (g - m), two, donate=(0,)),  # exp_avg.lerp_
        Launch(lambda v: BETA2 * v, one, donate=(0,)),  # exp_avg_sq.mul_
        Launch(lambda v, g: v + (1 - BETA2) * g * g, two, donate=(0,)),  # .addcmul_
        Launch(jnp.sqrt, one),
        Launch(lambda root: root / 0.03, one),  # by the root of the bias correction
        Launch(lambda denominator: denominator + EPS, one, donate=(0,)),  # .add_
        Launch(lambda p, m, denominator: p - LR * m / denominator, three, donate=(0,)),  # param.addcdiv_
    )
