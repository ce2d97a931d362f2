"""Adam on an FPGA board: the parameters that have taken the same number of steps are stepped by one launch of hls/adam.

They lie one after the other in flat arrays on the board, as many as fit into a part of its memory; a launch reads and writes
28 bytes an element there. All arithmetic is fp32: what is narrower is widened on the way to the board and rounded once on
the way back, but for bf16 parameters with fp32 masters, whose gradients and rounded values the kernel takes and gives as
bf16. Where parameters are averaged, the host does that, with the values that come back.

Of fp32 tensors of the device "fpga" each parameter is stepped where its tensors lie, by a launch of its own: nothing moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from accelops.targets.fpga import model
from accelops.targets.fpga.device import residence

from . import native
from .lists import Hyper, Lists
from .spec import AdamSpec

AMSGRAD, BF16 = 1, 2  # flags of hls/adam/adam.hpp
PART_OF_MEMORY = 16  # a launch takes at most one part in so many: allocations must be contiguous, and others want room


@dataclass(frozen=True)
class Config:
    """Nothing to choose: memory sets the pace."""


def unsupported(spec: AdamSpec) -> list[str]:
    on_host = replace(spec, device="cpu") if spec.device == "fpga" else spec
    return native.unsupported(on_host, ("float32", "bfloat16", "float16", "complex64"))


def configs(spec: AdamSpec) -> list[Config]:
    return [Config()]


def run(config: Config, spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
    """Step in place: parameters, state and step counts; nothing of it where a launch fails. Of the device "fpga" then nothing
    of the parameter at which it failed: those before it are stepped and have counted it."""
    if not lists.params:
        return
    ordered, copied = lists.in_one_order() if lists.table.irregular else (lists, [])
    with residence.board_of(lists.params[0]) as driver:
        if spec.device != "fpga":
            _step_all(driver, spec, ordered, hyper)
        else:
            increment_version(lists.params)  # their host's sides have no version
            if spec.dtype in ("float32", "complex64") and not spec.master and not spec.ema:
                _step_each_where_it_lies(spec, ordered, hyper)
            else:  # the board works on fp32 copies, which are not what the tensors hold
                _step_all(driver, spec, _host_sides(ordered), hyper)
    for original, copy in copied:
        original.copy_(copy)


def _host_sides(lists: Lists) -> Lists:
    return Lists(*([residence.host(t, writes=True) for t in getattr(lists, f.name)] for f in fields(lists)))


def _step_each_where_it_lies(spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
    for count, rows in _by_count(lists.state_steps).items():
        factors = _factors(hyper, count)
        for row in rows:
            if lists.params[row].numel():
                with residence.board_of(lists.params[row]) as driver:  # a launch needs room for one parameter's tensors
                    _step_where_it_lies(driver, spec, lists, row, factors)
            lists.state_steps[row].add_(1)


def _step_where_it_lies(driver: Any, spec: AdamSpec, lists: Lists, row: int, factors: dict[str, float]) -> None:
    """One launch on the copies that the board has of the row's tensors, or is given now."""
    columns = {"weight": lists.params, "exp_avg": lists.exp_avgs, "exp_avg_sq": lists.exp_avg_sqs}
    if spec.amsgrad:
        columns["max_exp_avg_sq"] = lists.max_exp_avg_sqs
    views = {name: _flat(residence.side(column[row])) for name, column in columns.items()}
    state = {name: _on_board(driver, view, writes=True) for name, view in views.items()}
    state.setdefault("max_exp_avg_sq", None)
    out = {f"{name}_out": buffer for name, buffer in state.items()}
    numel, flags = len(views["weight"]), AMSGRAD * spec.amsgrad
    grad = _on_board(driver, _flat(residence.side(lists.grads[row])))
    estimate = model.adam(driver.board, numel, spec.amsgrad, False)
    driver.run("adam", estimate, grad=grad, rounded_out=None, **state, **out, numel=numel, flags=flags, **factors)
    for view in views.values():
        residence.home(view).written(view, FLAT, partial(_take, view))


FLAT = "one number after the other"  # a layout of copies on a board


def _on_board(driver: Any, view: Tensor, writes: bool = False) -> Any:
    def whole_beats() -> Tensor:
        return torch.nn.functional.pad(view, (0, -len(view) % driver.board.float_lanes))

    home = residence.home(view)
    buffer = home.read(view, FLAT, whole_beats)
    return home.to_be_written(view, FLAT, buffer.nbytes) if writes else buffer


def _take(view: Tensor, buffer: Any) -> None:
    view.copy_(torch.from_numpy(buffer.read(np.float32, len(view))))


def _step_all(driver: Any, spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
    flags = AMSGRAD * spec.amsgrad | BF16 * (spec.master and spec.dtype == "bfloat16")
    most = driver.board.ddr.bytes // PART_OF_MEMORY // (4 * (4 + spec.amsgrad))
    stepped = [
        (pieces, _step(driver, pieces, flags, _factors(hyper, count)))
        for count, rows in _by_count(lists.state_steps).items()
        for pieces in _launches(lists, rows, most)
    ]
    for pieces, found in stepped:
        _store(pieces, found, 1 - hyper.ema_decay)
    for step in lists.state_steps:
        step.add_(1)


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
