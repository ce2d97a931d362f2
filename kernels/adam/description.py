"""What the lists of an Adam step hold: for tensors on other devices than the CPU, which native code does not step, and
where there is no native code. It says what native.AdamTable says.

All is read at each step, so nothing can be out of date; what follows from it is kept. Native code reads 10 lists of a
parameter in a fifth of the time that Python needs.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

import torch
from torch import Tensor

from accelops.targets.cpu import native

from .blockwise import blocks
from .spec import MIXED

Kind = tuple[torch.dtype, torch.Size, torch.device]
Column = tuple[tuple[Kind, ...], tuple[tuple[int, ...], ...]]  # kinds and strides of the tensors of a list

_kind = attrgetter("dtype", "shape", "device")
_CLASSES = {Tensor, torch.nn.Parameter}  # a subclass may mean something else by its memory

_CPU = torch.device("cpu")

# The real numbers that an element consists of, and how many.
REAL = {
    torch.float32: (torch.float32, 1),
    torch.bfloat16: (torch.bfloat16, 1),
    torch.float16: (torch.float16, 1),
    torch.complex64: (torch.float32, 2),
    torch.float64: (torch.float64, 1),
    torch.complex128: (torch.float64, 2),
}


@dataclass(frozen=True)
class Description:
    """`why` is not empty where no kernel may step the lists as they are; `mixed`: only because they are to be cut (on
    several devices, or of fp64 and of narrower numbers). `irregular`: the parameters with gaps, or whose tensors hold
    their elements in different orders. `numel` and `sizes` count real numbers, of the dtypes `reals`."""

    why: str = ""
    mixed: bool = False
    irregular: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    reals: tuple[torch.dtype, ...] = ()
    dtype: str = "float32"
    state_dtype: str = "float32"
    device: torch.device = _CPU
    steps_on_device: bool = False
    wide_steps: tuple[bool, ...] = ()  # the counts that are kept in fp64

    @property
    def numel(self) -> int:
        return sum(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)


_known: dict[bytes, Description] = {}
_MOST_KNOWN = 256


def read(columns: Sequence[Sequence[Tensor]]) -> tuple[bytes | None, tuple[bytes, ...]]:
    """(kinds, addresses): all that lists of tensors are but where, as bytes that equal lists have in common, None where no
    native code could read them; and where each list's tensors are, 8 bytes each."""
    found = native.read_lists(columns) if native is not None else None
    if found is not None:
        return found
    try:
        return None, tuple([array("q", map(Tensor.data_ptr, column)).tobytes() for column in columns])
    except RuntimeError:  # of a tensor that has no one memory; its description refuses it
        return None, ()


def describe(columns: Sequence[Sequence[Tensor]], kinds: bytes | None = None) -> Description:
    """`columns` are the fields of Lists, in their order; `kinds` is what `read` says of them."""
    if kinds is None:
        return _describe(columns)
    found = _known.get(kinds)
    if found is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        found = _known[kinds] = _describe(columns)
    return found


def _describe(columns: Sequence[Sequence[Tensor]]) -> Description:
    classes = set().union(*(map(type, column) for column in columns))
    if not classes <= _CLASSES:
        return Description(why="a tensor of a class of its own")
    try:
        return _described(tuple((tuple(map(_kind, c)), tuple(map(Tensor.stride, c))) for c in columns))
    except RuntimeError:  # of `stride`
        return Description(why="a tensor that is not strided")


def family(kind: Kind) -> tuple[torch.device, bool]:
    """Parameters of one family may be stepped by one launch."""
    dtype, _, device = kind
    return device, REAL.get(dtype, (dtype,))[0] is torch.float64


@lru_cache(maxsize=256)
def _described(columns: tuple[Column, ...]) -> Description:
    params, grads, *states, steps, masters, emas, scales, scales_sq = columns
    kinds = params[0]
    why = _refusal(params, grads, states, steps, masters, emas, bool(scales[0]))
    why = why or (_refusal_of_8_bits(params, states, (scales, scales_sq)) if scales[0] else "")
    if why:
        return Description(why=why)
    if len(set(map(family, kinds))) > 1:
        return Description(why="parameters on several devices, or of fp64 among others", mixed=True)
    aligned = [column for column in (grads, *states, masters, emas) if column[0]]
    return Description(
        irregular=tuple(k for k in range(len(kinds)) if not _regular(k, params, aligned)),
        sizes=tuple(REAL[dtype][1] * shape.numel() for dtype, shape, _ in kinds),
        reals=tuple(REAL[dtype][0] for dtype, _, _ in kinds),
        dtype=_one_name({dtype for dtype, _, _ in kinds}),
        state_dtype=_one_name({dtype for dtype, _, _ in states[0][0]}),
        device=kinds[0][2] if kinds else _CPU,
        steps_on_device=all(device == kinds[0][2] for _, _, device in steps[0]),
        wide_steps=tuple(dtype is torch.float64 for dtype, _, _ in steps[0]),
    )


def _refusal(
    params: Column, grads: Column, states: list[Column], steps: Column, masters: Column, emas: Column, in_8_bits: bool
) -> str:
    kinds = params[0]
    columns = (grads, *states, masters, emas)
    if any(len(column[0]) not in (len(kinds), 0) for column in columns) or not (
        len(kinds) == len(grads[0]) == len(states[0][0]) == len(states[1][0]) == len(steps[0])
    ):
        return "lists of different lengths"
    if any(dtype not in REAL for dtype, _, _ in kinds):
        return "a dtype that is not a floating-point number of 2, 4 or 8 bytes"
    if any(grad[0] != param[0] for grad, param in zip(grads[0], kinds, strict=True)):
        return "a gradient of another dtype than its parameter"
    for column in columns:
        if any(kind[1:] != param[1:] for kind, param in zip(column[0], kinds, strict=False)):
            return "tensors of one parameter with different shapes or devices"
    own = [dtype for dtype, _, _ in kinds]
    full = [dtype if REAL[dtype][0] is torch.float64 or dtype.is_complex else torch.float32 for dtype in own]
    kept = [[dtype for dtype, _, _ in column[0]] for column in states if column[0]]
    expected = ([torch.uint8] * len(own),) if in_8_bits else (own, full)
    if any(dtypes != kept[0] for dtypes in kept) or kept[0] not in expected:
        return "states of different dtypes"
    if any([dtype for dtype, _, _ in column[0]] not in ([], full) for column in (masters, emas)):
        return "masters or averages that are not of full precision"
    if any(shape.numel() != 1 or dtype not in (torch.float32, torch.float64) for dtype, shape, _ in steps[0]):
        return "a step count that is not one fp32 or fp64 number"
    if any(device.type != "cpu" and device != param[2] for (_, _, device), param in zip(steps[0], kinds, strict=True)):
        return "a step count on another device"
    return ""


def _refusal_of_8_bits(params: Column, states: list[Column], scales: tuple[Column, Column]) -> str:
    kinds = params[0]
    if states[2][0]:
        return "amsgrad with moments in 8 bits"
    if any(REAL[dtype] not in ((torch.float32, 1), (torch.bfloat16, 1), (torch.float16, 1)) for dtype, _, _ in kinds):
        return "moments in 8 bits of a parameter that is neither fp32 nor bf16 nor fp16"
    wanted = tuple((torch.float32, (blocks(shape.numel()),), device) for _, shape, device in kinds)
    if any(column[0] != wanted for column in scales):
        return "scales that are not one fp32 number for each block of 8 bits"
    # A block is of elements that follow each other in memory: in another order its codes are of other blocks.
    if not all(_regular(k, params, states[:2]) for k in range(len(kinds))):
        return "moments in 8 bits in another order than their parameter"
    return ""


def _one_name(dtypes: set[torch.dtype]) -> str:
    return str(dtypes.pop()).removeprefix("torch.") if len(dtypes) == 1 else MIXED if dtypes else "float32"


def _regular(k: int, params: Column, others: list[Column]) -> bool:
    """Whether every address from the first element to the last holds one, and equal offsets hold equal elements."""
    shape, strides = params[0][k][1], params[1][k]
    span = 1
    for stride, size in sorted((t, s) for t, s in zip(strides, shape, strict=True) if s != 1):
        if stride != span:
            return shape.numel() == 0
        span *= size
    return all(
        mine == theirs or size <= 1
        for column in others
        for mine, theirs, size in zip(strides, column[1][k], shape, strict=True)
    )
