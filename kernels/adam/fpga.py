"""Adam on an FPGA board: the parameters that have taken the same number of steps are stepped by one launch of hls/adam.

They lie one after the other in flat arrays on the board, as many as fit into a part of its memory; a launch reads and writes
28 bytes an element there. All arithmetic is fp32: what is narrower is widened on the way to the board and rounded once on
the way back, but for bf16 parameters with fp32 masters, whose gradients and rounded values the kernel takes and gives as
bf16. Where parameters are averaged, the host does that, with the values that come back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accelops.targets import fpga
from accelops.targets.fpga import model

from . import native
from .lists import Hyper, Lists
from .spec import AdamSpec

AMSGRAD, BF16 = 1, 2  # flags of hls/adam/adam.hpp
PART_OF_MEMORY = 16  # a launch takes at most one part in so many: allocations must be contiguous, and others want room


@dataclass(frozen=True)
class Config:
    """Nothing to choose: memory sets the pace."""


def unsupported(spec: AdamSpec) -> list[str]:
    return native.unsupported(spec, ("float32", "bfloat16", "float16", "complex64"))


def configs(spec: AdamSpec) -> list[Config]:
    return [Config()]


def run(config: Config, spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
    """Step in place: parameters, state and step counts; nothing of it where a launch fails."""
    ordered, copied = lists.in_one_order() if lists.table.irregular else (lists, [])
    driver = fpga.current()
    flags = AMSGRAD * spec.amsgrad | BF16 * (spec.master and spec.dtype == "bfloat16")
    most = driver.board.ddr.bytes // PART_OF_MEMORY // (4 * (4 + spec.amsgrad))
    stepped = [
        (pieces, _step(driver, pieces, flags, _factors(hyper, count)))
        for count, rows in _by_count(ordered.state_steps).items()
        for pieces in _launches(ordered, rows, most)
    ]
    for pieces, found in stepped:
        _store(pieces, found, 1 - hyper.ema_decay)
    for step in lists.state_steps:
        step.add_(1)
    for original, copy in copied:
        original.copy_(copy)


def _by_count(steps: Sequence[Tensor]) -> dict[float, list[int]]:
    """The rows of the parameters, by the number of the step that they are to take."""
    rows: dict[float, list[int]] = {}
    for row, step in enumerate(steps):
        rows.setdefault(step.item() + 1, []).append(row)
    return rows


def _factors(hyper: Hyper, count: float) -> dict[str, float]:
    """What hls/adam/adam.hpp asks of the host, in fp64."""
    lr = float(hyper.lr)
    return {
        "grad_factor": float(-hyper.grad_factor if hyper.maximize else hyper.grad_factor),
        "l2": 0.0 if hyper.decoupled else hyper.weight_decay,
        "decay": 1 - lr * hyper.weight_decay if hyper.decoupled else 1.0,
        "beta1_rest": 1 - hyper.beta1,
        "beta2": hyper.beta2,
        "beta2_rest": 1 - hyper.beta2,
        "step_size": lr / (1 - hyper.beta1**count),
        "inv_root_correction2": (1 - hyper.beta2**count) ** -0.5,
        "eps": hyper.eps,
    }


@dataclass(frozen=True)
class _Piece:
    """A stretch of one parameter: of each of its tensors the same elements, 1D in memory's order; None where the step has
    no such tensor."""

    param: Tensor
    grad: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    max_exp_avg_sq: Tensor | None
    master: Tensor | None
    ema: Tensor | None


_COLUMNS = ("params", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "masters", "emas")


def _launches(lists: Lists, rows: list[int], most: int) -> Iterator[list[_Piece]]:
    """The rows cut into pieces, at most `most` elements a launch."""
    pieces: list[_Piece] = []
    room = most
    for row in rows:
        columns = [getattr(lists, name) for name in _COLUMNS]
        tensors = [_flat(column[row]) if column else None for column in columns]
        begin, numel = 0, len(tensors[0])
        while begin < numel:
            end = min(numel, begin + room)
            pieces.append(_Piece(*(None if t is None else t[begin:end] for t in tensors)))
            room -= end - begin
            begin = end
            if not room:
                yield pieces
                pieces, room = [], most
    if pieces:
        yield pieces


def _flat(tensor: Tensor) -> Tensor:
    """Its real numbers as they lie in memory, where they lie without gaps."""
    real = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    return real.as_strided((real.numel(),), (1,))


def _step(driver: Any, pieces: list[_Piece], flags: int, factors: dict[str, float]) -> dict[str, Tensor]:
    """One launch: what it makes of the pieces, one after the other, by the kernel's names."""
    amsgrad, bf16 = bool(flags & AMSGRAD), bool(flags & BF16)
    numel = sum(len(piece.param) for piece in pieces)
    with ExitStack() as held:

        def array(tensors: list[Tensor | None], dtype: torch.dtype = torch.float32) -> Any:
            whole_beats = model.ceil_div(numel * dtype.itemsize, driver.board.beat_bytes) * driver.board.beat_bytes
            buffer = held.enter_context(driver.allocate(whole_beats))
            offset = 0
            for tensor in tensors:
                buffer.write(tensor.to(dtype), offset)
                offset += tensor.numel() * dtype.itemsize
            return buffer

        grad = array([p.grad for p in pieces], torch.bfloat16 if bf16 else torch.float32)
        state = {
            "weight": array([p.param if p.master is None else p.master for p in pieces]),
            "exp_avg": array([p.exp_avg for p in pieces]),
            "exp_avg_sq": array([p.exp_avg_sq for p in pieces]),
            "max_exp_avg_sq": array([p.max_exp_avg_sq for p in pieces]) if amsgrad else None,
        }
        rounded = array([], torch.bfloat16) if bf16 else None
        out = {f"{name}_out": buffer for name, buffer in state.items()} | {"rounded_out": rounded}
        estimate = model.adam(driver.board, numel, amsgrad, bf16)
        driver.run("adam", estimate, grad=grad, **state, **out, numel=numel, flags=flags, **factors)
        found = {name: torch.from_numpy(b.read(np.float32, numel)) for name, b in state.items() if b is not None}
        if rounded is not None:
            found["rounded"] = torch.from_numpy(rounded.read(np.int16, numel)).view(torch.bfloat16)
    return found


def _store(pieces: list[_Piece], found: dict[str, Tensor], ema_rest: float) -> None:
    sizes = [len(piece.param) for piece in pieces]
    of = {name: values.split(sizes) for name, values in found.items()}
    for i, piece in enumerate(pieces):
        weight = of["weight"][i]
        piece.param.copy_(of.get("rounded", of["weight"])[i])
        piece.exp_avg.copy_(of["exp_avg"][i])
        piece.exp_avg_sq.copy_(of["exp_avg_sq"][i])
        if piece.max_exp_avg_sq is not None:
            piece.max_exp_avg_sq.copy_(of["max_exp_avg_sq"][i])
        if piece.master is not None:
            piece.master.copy_(weight)
        if piece.ema is not None:
            piece.ema.lerp_(weight, ema_rest)
