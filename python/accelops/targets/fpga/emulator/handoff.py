"""The pair of files that make an overlay for the emulated board: a .bit that says which kernels it holds, and the .hwh
that pynq finds them by, both written from a board's registers.

The .bit has the header of a real one (fields a to e, lengths big-endian), then MAGIC, the SHA-256 of the .hwh, JSON, and a
CRC. The hash is there because pynq keeps what it read of a .hwh under a hash of the .bit: they must change together. A
client sends the data with the bytes of every word reversed, as an FPGA's configuration port takes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from ..boards import Board
from ..registers import config_hash, kernels
from .faults import Refused
from .hwh import DESIGN, hwh

MAGIC = b"ACCELOPS EMULATED\0"
JSON_AT = -(-(len(MAGIC) + 32) // 4) * 4  # whole words, as all data; its length first
PREAMBLE = bytes.fromhex("00090ff00ff00ff00ff0000001")
DATE = "2025/01/01"  # the same files give the same .bit


@dataclass(frozen=True)
class Contents:
    """What the data of a bitstream says: kernels by name, each with the address and configuration it was built with."""

    board: str
    kernels: dict[str, dict[str, int]]


def write(board: Board, tops: tuple[str, ...], folder: Path, stem: str = "overlay") -> Path:
    """`folder`/`stem`.bit and .hwh of the kernels `tops`. Returns the .bit. Raises ValueError for an unknown kernel, or a
    board whose platform has no .hwh (Alveo)."""
    unknown = [top for top in tops if top not in kernels()]
    if unknown or not tops:
        raise ValueError(f"kernels={tops}: choose from {', '.join(kernels())}")
    if board.control_base is None:
        raise ValueError(f"board={board.name!r} is driven through XRT, not through a bitstream with a .hwh")
    at = addresses(board)
    text = hwh(board, {top: at[top] for top in tops})
    held = {
        top: {"base": at[top], "version": kernels()[top].version, "config_hash": config_hash(kernels()[top], board)}
        for top in tops
    }
    data = _data(Contents(board.name, held), hashlib.sha256(text.encode()).digest())
    folder.mkdir(parents=True, exist_ok=True)
    bit = folder / f"{stem}.bit"
    _replace(bit.with_suffix(".hwh"), text.encode())
    _replace(bit, _header(board.part, len(data)) + data)
    return bit


def addresses(board: Board) -> dict[str, int]:
    """Of every kernel's registers; a kernel keeps its own, whichever others are there."""
    assert board.control_base is not None
    return {top: board.control_base + i * board.control_stride for i, top in enumerate(kernels())}


def read(data: bytes) -> Contents:
    """Of a .bit, or of the data that a client sends. Raises Refused for what was not written here, or was damaged."""
    if data.startswith(PREAMBLE):
        data = _behind_header(data)
    if not data.startswith(MAGIC):
        data = _swapped(data)
    if not data.startswith(MAGIC):
        raise Refused(
            "this bitstream was not written for emulation: its kernels cannot be found in it. An emulated board takes "
            "what accelops.targets.fpga.emulator.handoff writes, a real board what Vivado writes"
        )
    body, (crc,) = data[:-4], struct.unpack(">I", data[-4:])
    if zlib.crc32(body) != crc:
        raise Refused(f"CRC error: the bitstream says {crc:#010x}, its {len(body)} bytes give {zlib.crc32(body):#010x}")
    (length,) = struct.unpack_from(">I", body, JSON_AT)
    return Contents(**json.loads(body[JSON_AT + 4 :][:length]))


def _data(contents: Contents, digest: bytes) -> bytes:
    text = json.dumps(asdict(contents), sort_keys=True).encode()
    body = (MAGIC + digest).ljust(JSON_AT, b"\0") + struct.pack(">I", len(text)) + text + bytes(-len(text) % 4)
    return body + struct.pack(">I", zlib.crc32(body))


def _header(part: str, nbytes: int) -> bytes:
    fields = (b"a", f"{DESIGN};UserID=0XFFFFFFFF;Version=emulated"), (b"b", part), (b"c", DATE), (b"d", "00:00:00")
    texts = b"".join(tag + struct.pack(">H", len(text) + 1) + text.encode() + b"\0" for tag, text in fields)
    return PREAMBLE + texts + b"e" + struct.pack(">I", nbytes)


def _behind_header(bit: bytes) -> bytes:
    at = len(PREAMBLE)
    while bit[at : at + 1] in (b"a", b"b", b"c", b"d"):
        at += 3 + int.from_bytes(bit[at + 1 : at + 3], "big")
    return bit[at + 5 :]


def _swapped(data: bytes) -> bytes:
    words = len(data) // 4
    return struct.pack(f"<{words}I", *struct.unpack(f">{words}I", data[: 4 * words]))


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
