"""The arguments of a launch: checked, and packed into a kernel's registers as one transfer writes them; and read back from
there for a person."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from .model import Estimate
from .pool import Buffer, Pool
from .registers import FIRST_ARGUMENT, Kernel, kernels, offsets

_FORMATS = {"read": "<Q", "write": "<Q", "uint32": "<I", "int32": "<i", "float32": "<f"}


@dataclass(frozen=True)
class Call:
    """A launch to be made: the argument registers, the buffers that it reads, and those that it writes, with offsets."""

    kernel: Kernel
    estimate: Estimate
    words: bytes
    inputs: tuple[Buffer, ...]
    outputs: tuple[tuple[Buffer, int], ...]

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(dict.fromkeys((*self.inputs, *(buffer for buffer, _ in self.outputs))))


def packed(name: str, estimate: Estimate, arguments: dict[str, Any], pool: Pool) -> Call:
    """For the board of `pool`. Raises TypeError for missing or unknown arguments, ValueError for what does not fit."""
    board = pool.link.board
    if name not in kernels():
        raise ValueError(f"kernel={name!r} is none of {', '.join(kernels())}")
    if estimate.board != board:
        raise ValueError(f"{name}: the estimate is for {estimate.board.name}, the board is {board.name}")
    kernel = kernels()[name]
    taken = [a for a in kernel.arguments if a.kind != "identity"]
    if {a.name for a in taken} != set(arguments):
        raise TypeError(f"{name} takes {', '.join(a.name for a in taken)}; given {', '.join(arguments)}")
    words, at = bytearray(nothing(kernel)), offsets(kernel)
    inputs, outputs = [], []
    for argument in taken:
        value = arguments[argument.name]
        if argument.pointer:
            buffer, offset = _place(f"{name}: {argument.name}", value, pool)
            value = 0 if buffer is None else buffer.address + offset
            if buffer is not None and argument.kind == "read":
                inputs.append(buffer)
            elif buffer is not None:
                outputs.append((buffer, offset))
        try:
            struct.pack_into(_FORMATS[argument.kind], words, at[argument.name] - FIRST_ARGUMENT, value)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"{name}: {argument.name}={value!r} is no {argument.kind} ({error})") from None
    return Call(kernel, estimate, bytes(words), tuple(inputs), tuple(outputs))


def nothing(kernel: Kernel) -> bytes:
    """Registers with which a kernel has nothing to do: no elements, no images, no buckets."""
    return bytes(offsets(kernel)["VERSION"] - FIRST_ARGUMENT)


def described(kernel: Kernel, words: bytes) -> str:
    values = {
        a.name: struct.unpack_from(_FORMATS[a.kind], words, offsets(kernel)[a.name] - FIRST_ARGUMENT)[0]
        for a in kernel.arguments
        if a.kind != "identity"
    }
    return ", ".join(f"{n}={v:#x}" if isinstance(v, int) else f"{n}={v:g}" for n, v in values.items())


def _place(what: str, value: Buffer | tuple[Buffer, int] | None, pool: Pool) -> tuple[Buffer | None, int]:
    if value is None:
        return None, 0
    buffer, offset = value if isinstance(value, tuple) else (value, 0)
    beat = pool.link.board.beat_bytes
    if not isinstance(buffer, Buffer):
        raise TypeError(f"{what}: expected a Buffer, (Buffer, byte offset) or None, not {type(buffer).__name__}")
    if not buffer.of(pool):
        raise ValueError(f"{what}: the buffer is another board's; allocate it on {pool.link.where}")
    if not 0 <= offset <= buffer.nbytes or offset % beat:
        raise ValueError(
            f"{what}: offset {offset} in a buffer of {buffer.nbytes} bytes; arrays begin at a beat of {beat} bytes"
        )
    return buffer, offset
