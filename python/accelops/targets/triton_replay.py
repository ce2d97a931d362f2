"""Makes the launches of a call again, with other tensors: a second call of the same problem costs the host little more than
the launches themselves.

Fitting a kernel to a problem takes Python tens of microseconds, and Triton as many to bind arguments of which only addresses
have changed. So the first call is recorded: which compiled kernels it launched, with which arguments, and which tensors it
made. Later calls allocate the same tensors, and hand the compiled kernels the same arguments with new addresses in them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import triton

Slot = tuple[int, int]  # position of an argument, and which tensor of the call it is


@dataclass(frozen=True)
class _Recording:
    """`made` allocates what the call allocates; its tensors are numbered behind the operands. `launches` are
    (launcher of a compiled kernel, arguments, slots), `result` the numbers of what is returned, None for None."""

    made: tuple[Callable[[], Tensor], ...]
    launches: tuple[tuple[Callable[..., None], tuple[Any, ...], tuple[Slot, ...]], ...]
    result: int | tuple[int | None, ...]

    def play(self, operands: tuple[Tensor | None, ...]) -> Any:
        tensors = (*operands, *[make() for make in self.made])
        for launch, arguments, slots in self.launches:
            filled = list(arguments)
            for position, number in slots:
                filled[position] = _with_tensor(filled[position], tensors[number])
            launch(*filled)
        if isinstance(self.result, int):
            return tensors[self.result]
        return tuple([None if number is None else tensors[number] for number in self.result])


class Replay:
    """`run(*operands, **options)`, replayed where a call has the same tensors present, aligned as they were, on the current
    device, with the same options and `circumstances()`. Shapes and dtypes must be the same in all calls, what `run` does
    must follow from them and from the circumstances alone, and it must compute by launches only.

    A call that launched nothing, or anything but compiled kernels on its own tensors, is never replayed."""

    def __init__(self, run: Callable[..., Any], circumstances: Callable[[], Hashable] = lambda: None) -> None:
        self._run = run
        self._circumstances = circumstances
        self._recordings: dict[Hashable, _Recording | None] = {}

    def __call__(self, *operands: Tensor | None, **options: Hashable) -> Any:
        device = operands[0].get_device()  # type: ignore[union-attr]
        if triton.redirected() or device != triton.current_device():
            return self._run(*operands, **options)
        present = [None if t is None else t.data_ptr() % 16 == 0 for t in operands]
        key = (device, self._circumstances(), *present, *options.values())
        try:
            recording = self._recordings[key]
        except KeyError:
            return self._record(key, operands, options)
        return self._run(*operands, **options) if recording is None else recording.play(operands)

    def _record(self, key: Hashable, operands: tuple[Tensor | None, ...], options: dict[str, Hashable]) -> Any:
        with triton.recorded() as launches:
            result = self._run(*operands, **options)
        self._recordings[key] = _recording(launches, operands, result)
        return result


def _recording(launches: list[triton.Launch], operands: tuple[Tensor | None, ...], result: Any) -> _Recording | None:
    tensors: list[Tensor | None] = list(operands)

    def number(tensor: Tensor) -> int:
        for i, known in enumerate(tensors):
            if known is tensor:
                return i
        tensors.append(tensor)
        return len(tensors) - 1

    played = []
    for launch in launches:
        if launch.compiled is None:
            return None
        arguments = launch.bound
        slots = tuple((i, number(t)) for i, t in enumerate(map(triton.tensor_of, arguments)) if t is not None)
        blank = tuple(_with_tensor(a, None) if triton.tensor_of(a) is not None else a for a in arguments)
        grid = (*launch.grid, 1, 1)[:3]
        played.append((launch.compiled[grid], blank, slots))
    numbers = number(result) if isinstance(result, Tensor) else tuple(None if r is None else number(r) for r in result)
    made = tensors[len(operands) :]
    memories = {t.untyped_storage().data_ptr() for t in made}  # type: ignore[union-attr]
    if not launches or len(memories) < len(made) or any(t.storage_offset() for t in made):  # type: ignore[union-attr]
        return None
    return _Recording(tuple(_maker(t) for t in made), tuple(played), numbers)  # type: ignore[arg-type]


def _with_tensor(argument: Any, tensor: Tensor | None) -> Any:
    """`tensor`, or a descriptor that is as `argument`, which is one, but for the tensor that it describes."""
    if argument is None or isinstance(argument, Tensor):
        return tensor
    described = copy(argument)  # its constructor would check again what the recorded call has checked
    described.base = tensor
    return described


def _maker(tensor: Tensor) -> Callable[[], Tensor]:
    return partial(torch.empty_strided, tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
