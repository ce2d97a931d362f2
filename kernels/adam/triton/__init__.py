"""Adam on the GPU in Triton: one launch for a list of any length, sizes and dtypes, and one more, small, where the step
counts lie on the device.

No step waits for the device or asks it anything, so a CUDA graph can capture it where the counts are there too
(capturable=True or fused=True); every number that the device has (lr, clip coefficient, loss scale, found_inf) is read by
the kernels. A parameter whose tensors have gaps or different orders is stepped through copies, their bytes twice more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.graph import increment_version

from accelops.targets import triton as gpu

from ..blockwise import numbers
from ..lists import Hyper, Lists
from ..spec import MIXED, AdamSpec
from .kernels import count, step
from .tables import Tables

DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
NAMES = ("float32", "bfloat16", "float16", "complex64", MIXED)
NARROW = (torch.bfloat16, torch.float16)
_ROWS = (
    "params",
    "exp_avgs",
    "exp_avg_sqs",
    "max_exp_avg_sqs",
    "masters",
    "emas",
    "state_steps",
    "exp_avg_scales",
    "exp_avg_sq_scales",
)
CODES = {dtype: code for code, dtype in enumerate(DTYPES)}  # in the table that says the dtype of each parameter


@dataclass(frozen=True)
class Config:
    """A program steps `pieces` times `block` elements."""

    block: int
    pieces: int
    num_warps: int


def unsupported(spec: AdamSpec) -> list[str]:
    reasons = []
    if spec.device not in gpu.devices():
        reasons.append(f"runs on {gpu.devices()[0]} tensors, not on {spec.device}")
    if spec.dtype not in NAMES:
        reasons.append(f"dtype {spec.dtype}: only {', '.join(NAMES)}")
    elif spec.state_dtype not in (spec.dtype, "float32", "uint8"):
        reasons.append(f"state_dtype {spec.state_dtype}: expected {spec.dtype}, float32 or uint8")
    return reasons


def configs(spec: AdamSpec) -> list[Config]:
    """16 elements of each tensor a thread are 256 bytes on the way at once, which is meant to cover the waits of a memory;
    8 of them leave registers to more threads, of which moments in 8 bits, with more arithmetic than memory, have need.
    Many pieces a program read the tables seldom; few even out the end of the launch and the small tensors."""
    if spec.state_dtype == "uint8":
        return [Config(2048, 4, 8), Config(1024, 8, 4), Config(2048, 1, 8), Config(1024, 1, 4), Config(2048, 4, 4)]
    return [Config(2048, 4, 4), Config(2048, 4, 8), Config(2048, 1, 4), Config(2048, 1, 8), Config(4096, 4, 8)]


def heuristic(spec: AdamSpec) -> tuple[None, str]:
    """Should it ever take a step, dispatch/adam.py has to know: _may_be_ours."""
    return None, "no GPU has measured it yet; accelops.tune measures it on this one"


def run(config: Config, spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
    """Step in place: parameters, state and step counts. Raises the version counters of the parameters, so that a
    backward through their old values is refused, as after torch's own in-place ops."""
    if not lists.params:
        return
    if hyper.found_inf is not None and not lists.description.steps_on_device:
        if hyper.found_inf.item():  # the only wait: the host has to know whether to count
            return
        hyper = replace(hyper, found_inf=None)
    ordered, copied = lists.in_one_order() if lists.description.irregular else (lists, [])
    increment_version(lists.params)
    _step(config, ordered, hyper)
    for original, copy in copied:
        original.copy_(copy)


def _step(config: Config, lists: Lists, hyper: Hyper) -> None:
    found = lists.description
    device, sizes, tensors = found.device, found.sizes, len(found)
    tables = Tables(device)
    addresses = tables.fixed(_addresses(lists))
    if found.steps_on_device:
        counted, same = _counted_on_device(lists, hyper, tables, addresses), (0.0, 0.0, 0.0, 0)
    else:
        counted, same = _counted_on_host(lists, hyper, tables)
    chunks = tables.chunks(sizes, config.block * config.pieces)
    if not chunks.shape[0]:
        return
    dtype, state = _one(found.reals), None if found.state_dtype == MIXED else _real(lists.exp_avgs[0].dtype)
    narrow = dtype in NARROW and state != torch.float32 and not lists.masters and not lists.emas
    gpu.launch(
        step,
        (chunks.shape[0],),
        chunks,
        tables.fixed(sizes),
        tables.fixed(tuple(CODES[dtype] for dtype in found.reals)),
        addresses,
        tables.moving(lists.addresses["grads"]),
        counted,
        hyper.found_inf,
        hyper.grad_scale,
        hyper.grad_factor,
        *same,
        float(hyper.weight_decay),
        1 - hyper.beta1,
        float(hyper.beta2),
        1 - hyper.beta2,
        float(hyper.eps),
        1 - hyper.ema_decay,
        _quantiles(device) if state is torch.uint8 else None,
        hyper.seed or 0,
        tensors,
        DTYPE=DTYPES.get(dtype),
        STATE=tl.uint8 if state is torch.uint8 else DTYPES.get(state),
        AMSGRAD=bool(lists.max_exp_avg_sqs),
        MASTER=bool(lists.masters),
        EMA=bool(lists.emas),
        STOCHASTIC=hyper.seed is not None,
        COUPLED=bool(hyper.weight_decay) and not hyper.decoupled,
        MAXIMIZE=hyper.maximize,
        FACTOR_ON_DEVICE=isinstance(hyper.grad_factor, Tensor),
        VECTOR=8 if narrow else 4,
        BLOCK=config.block,
        PIECES=config.pieces,
        num_warps=config.num_warps,
    )


def _one(dtypes: tuple[torch.dtype, ...]) -> torch.dtype | None:
    return dtypes[0] if len(set(dtypes)) == 1 else None


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype


@lru_cache(maxsize=16)
def _quantiles(device: torch.device) -> Tensor:
    """The maps of the first and of the second moment."""
    return torch.cat([numbers(signed, device) for signed in (True, False)])


def _addresses(lists: Lists) -> bytes:
    """The table whose rows kernels.py names."""
    known, none = lists.addresses, bytes(8 * len(lists.params))
    if not lists.description.steps_on_device:
        known["state_steps"] = b""
    return b"".join([known[name] or none for name in _ROWS])


def _counted_on_device(lists: Lists, hyper: Hyper, tables: Tables, addresses: Tensor) -> Tensor:
    found = lists.description
    counted = torch.empty(4, len(found), dtype=torch.float32, device=found.device)
    gpu.launch(
        count,
        (triton.cdiv(len(found), 256),),
        addresses,
        tables.fixed(found.wide_steps),
        counted,
        hyper.found_inf,
        hyper.lr,
        _logarithm(hyper.beta1),
        _logarithm(hyper.beta2),
        float(hyper.weight_decay) if hyper.decoupled else 0.0,
        len(found),
        LR_ON_DEVICE=isinstance(hyper.lr, Tensor),
        BLOCK=256,
        num_warps=4,
    )
    return counted


def _logarithm(beta: float) -> float:
    """In whose fp32 rounding 1 - beta^t keeps its precision, which that of beta would cost."""
    return math.log(beta) if beta > 0 else -math.inf


def _counted_on_host(
    lists: Lists, hyper: Hyper, tables: Tables
) -> tuple[Tensor | None, tuple[float, float, float, int]]:
    """What kernels.count works out, as a table, or as four numbers where it is the same for all parameters."""
    torch._foreach_add_(list(lists.state_steps), torch.tensor(1.0, device="cpu"), alpha=1.0)
    counts = [step.item() for step in lists.state_steps]
    found = {t: _counted(t, hyper) for t in set(counts)}
    if len(found) == 1:
        return None, found[counts[0]]
    return tables.floats(tuple(zip(*map(found.get, counts), strict=True))), (0.0, 0.0, 0.0, 0)


def _counted(t: float, hyper: Hyper) -> tuple[float, float, float, int]:
    lr = float(hyper.lr)
    decay = 1 - lr * hyper.weight_decay if hyper.decoupled else 1.0
    return lr / (1 - hyper.beta1**t), (1 - hyper.beta2**t) ** -0.5, decay, int(t)
