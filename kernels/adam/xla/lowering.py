"""The Adam step in JAX: one program for a list of any length, sizes and dtypes, or for one flat array.

XLA makes one pass over memory of it for each tensor: 28 bytes and 12 flops an fp32 parameter. All numbers are arrays, so
that a schedule of the learning rate compiles nothing anew. Arithmetic is in fp32 whatever the dtypes are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..spec import MIXED, AdamSpec
from .rounding import rounded


@dataclass(frozen=True)
class Flags:
    """What makes another program of a step. `decay` says that the weight decay is not 0, `guarded` that a step may be
    skipped, `stochastic` that bf16 parameters are rounded so."""

    decay: bool = False
    decoupled: bool = False
    amsgrad: bool = False
    guarded: bool = False
    stochastic: bool = False


class Numbers(NamedTuple):
    """Hyperparameters: 0-d fp32 arrays, the `constants` of that name in one array, and a `seed` of two int32, the lower half
    first. `factor` multiplies the gradients, negative to maximize, and `grad_scale` divides them; where `found_inf` is not
    0 a guarded step changes nothing."""

    lr: jax.Array
    factor: jax.Array
    grad_scale: jax.Array
    found_inf: jax.Array
    constants: jax.Array
    seed: jax.Array


def constants(
    beta1: float, beta2: float, eps: float, weight_decay: float, ema_decay: float
) -> tuple[float, float, float, float, float, float, float, float]:
    """1 - beta1, beta2, 1 - beta2, the logarithms of both, eps, the weight decay and 1 - ema_decay, worked out in double: in
    fp32 1 - beta would cost precision, and beta^t more of it."""
    logarithms = (math.log(beta) if beta > 0 else -math.inf for beta in (beta1, beta2))
    return 1 - beta1, beta2, 1 - beta2, *logarithms, eps, weight_decay, 1 - ema_decay  # type: ignore[return-value]


class State(NamedTuple):
    """What a step changes: a list each, empty or as long as `params`; named as in kernels/adam/lists.py."""

    params: list[jax.Array]
    exp_avgs: list[jax.Array]
    exp_avg_sqs: list[jax.Array]
    max_exp_avg_sqs: list[jax.Array]
    state_steps: list[jax.Array]
    masters: list[jax.Array]
    emas: list[jax.Array]


def lowered(flags: Flags) -> Callable[..., State]:
    """step(state, grads, numbers, counts=None) -> state, to be compiled by jax.jit, with donate_argnums=0 where memory can
    be given up. Where the host counts the steps, `counts` has the count of each parameter, raised already, and
    state.state_steps is empty."""

    def step(state: State, grads: list[jax.Array], numbers: Numbers, counts: jax.Array | None = None) -> State:
        rows = [_stepped(flags, state, row, grad, numbers, counts) for row, grad in enumerate(grads)]
        # A list of what no row has stays empty.
        return State(*([row[name] for row in rows if name in row] for name in State._fields))

    return step


def _stepped(
    flags: Flags, state: State, row: int, grad: jax.Array, n: Numbers, counts: jax.Array | None
) -> dict[str, jax.Array]:
    """Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2, where the decay is decoupled."""
    old = {name: column[row] for name, column in state._asdict().items() if column}
    t = old["state_steps"].astype(jnp.float32).reshape(()) + 1 if counts is None else counts[row]
    beta1_rest, beta2, beta2_rest, log_beta1, log_beta2, eps, weight_decay, ema_rest = n.constants
    p = old.get("masters", old["params"]).astype(jnp.float32)
    g = grad.astype(jnp.float32) * (n.factor / n.grad_scale)
    if flags.decay and flags.decoupled:
        p = p * (1 - n.lr * weight_decay)
    elif flags.decay:
        g = g + weight_decay * p
    m, v = old["exp_avgs"].astype(jnp.float32), old["exp_avg_sqs"].astype(jnp.float32)
    new = {} if counts is not None else {"state_steps": t.reshape(old["state_steps"].shape)}
    new["exp_avgs"] = m = m + beta1_rest * (g - m)
    new["exp_avg_sqs"] = v = beta2 * v + beta2_rest * g * g
    if flags.amsgrad:
        new["max_exp_avg_sqs"] = v = jnp.maximum(old["max_exp_avg_sqs"].astype(jnp.float32), v)
    # 1 - beta^t, in the precision of fp32 for any t.
    correction1, correction2 = -jnp.expm1(t * log_beta1), -jnp.expm1(t * log_beta2)
    p = p - (n.lr / correction1) * m / (jnp.sqrt(v) / jnp.sqrt(correction2) + eps)
    if "masters" in old:
        new["masters"] = p
    if "emas" in old:
        new["emas"] = old["emas"] + ema_rest * (p - old["emas"])
    if flags.stochastic and old["params"].dtype == jnp.bfloat16:
        new["params"] = rounded(p, n.seed, row, t)
    else:
        new["params"] = p
    new = {name: value.astype(old[name].dtype) for name, value in new.items()}
    return {k: jnp.where(n.found_inf != 0, old[k], x) for k, x in new.items()} if flags.guarded else new


def operands(spec: AdamSpec) -> tuple[State, list[jax.ShapeDtypeStruct], Numbers]:
    """Shapes and dtypes of what a lowered step takes, for one-dimensional parameters of equal size (the last has the rest)."""
    count = max(1, spec.tensors)
    sizes = [spec.numel // count] * (count - 1)
    sizes.append(spec.numel - sum(sizes))

    def column(dtype: str, wanted: bool = True) -> list[jax.ShapeDtypeStruct]:
        dtypes = ("float32", "bfloat16", "float16") if dtype == MIXED else (dtype,)
        made = [jax.ShapeDtypeStruct((n,), jnp.dtype(dtypes[i % len(dtypes)])) for i, n in enumerate(sizes)]
        return made if wanted else []

    number = jax.ShapeDtypeStruct((), jnp.float32)
    state = State(
        params=column(spec.dtype),
        exp_avgs=column(spec.state_dtype),
        exp_avg_sqs=column(spec.state_dtype),
        max_exp_avg_sqs=column(spec.state_dtype, spec.amsgrad),
        state_steps=[number for _ in sizes],
        masters=column("float32", spec.master),
        emas=column("float32", spec.ema),
    )
    of_all = (jax.ShapeDtypeStruct((8,), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32))
    return state, column(spec.dtype), Numbers(*[number] * 4, *of_all)
