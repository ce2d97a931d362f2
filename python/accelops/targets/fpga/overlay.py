"""Overlays: a bitstream with its .hwh, where they are found, and what can be told before a board is touched.

Which kernels an overlay holds is read from its .hwh, never from its name. A .bit and a .hwh belong together when they
name the same part and design; an emulated board's bitstream holds the digest of its .hwh besides. Looked for, in this
order: the path that the user gave, the folder ACCELOPS_OVERLAYS, the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from platformdirs import user_cache_path

from .boards import Board
from .errors import OverlayMismatch
from .registers import kernels

FOLDER_VARIABLE = "ACCELOPS_OVERLAYS"
EMULATED = b"ACCELOPS EMULATED\0"  # in a bitstream without any logic, before the SHA-256 of its .hwh
VENDOR = "xilinx.com:hls:"  # of the kernels' VLNV, as Vitis HLS packages them


def cache_folder() -> Path:
    """Below $ACCELOPS_CACHE, else the platform's cache folder for accelops."""
    asked = os.environ.get("ACCELOPS_CACHE")
    return (Path(asked) if asked else user_cache_path("accelops")) / "overlays"


@dataclass(frozen=True)
class Overlay:
    """`bit` and its .hwh for `board`, with the `kernels` at their addresses."""

    board: Board
    kernels: tuple[str, ...]
    bit: Path

    @property
    def hwh(self) -> Path:
        return self.bit.with_suffix(".hwh")

    @cached_property
    def emulated(self) -> bool:
        """Whether it holds no logic and serves an emulated board alone."""
        return EMULATED in self.bit.read_bytes()

    @cached_property
    def digest(self) -> str:
        """Of both files' contents."""
        return hashlib.sha256(self.bit.read_bytes() + self.hwh.read_bytes()).hexdigest()


def base_address(board: Board, kernel: str) -> int:
    """Of a kernel's registers: the same in every overlay of the board."""
    if board.control_base is None:
        raise ValueError(f"{board.name}: its platform assigns addresses to kernels; this driver is for Zynq boards")
    return board.control_base + list(kernels()).index(kernel) * board.control_stride


def opened(board: Board, bit: Path) -> Overlay:
    """The overlay in `bit`. Raises OverlayMismatch where a file is missing or damaged, both do not belong together, or they
    are not for `board`."""
    hwh = bit.with_suffix(".hwh")
    for path, made in ((bit, "the bitstream"), (hwh, "the hardware handoff that Vivado writes with the bitstream")):
        if not path.is_file():
            raise OverlayMismatch(f"{path} is missing: {made}; make -C hls bit BOARD={board.name} writes both")
    header = _header(bit)
    system, addresses = _handoff(hwh)
    for wrong in _disagreements(board, bit, header, system, addresses):
        raise OverlayMismatch(f"{bit}: {wrong}")
    return Overlay(board, tuple(addresses), bit)


def _disagreements(
    board: Board, bit: Path, header: dict[str, str], system: dict[str, str], addresses: dict[str, int]
) -> Iterator[str]:
    part, design, device = header["part"], header["design"], system.get("DEVICE", "")
    if part.removeprefix("xc") not in board.part.removeprefix("xc"):
        yield f"is built for the part {part}, {board.name} has {board.part}; load it on its own board, or build for this"
    if device.removeprefix("xc") not in board.part.removeprefix("xc"):
        yield f"its .hwh is for the device {device}, {board.name} has {board.part}"
    if not design.startswith(system.get("NAME", "")):
        yield f"holds the design {design!r}, its .hwh describes {system.get('NAME')!r}: copy both from one build"
    _, marker, rest = bit.read_bytes().partition(EMULATED)
    if marker and rest[:32] != hashlib.sha256(bit.with_suffix(".hwh").read_bytes()).digest():
        yield "its .hwh is another's: the digest that the bitstream holds differs; copy both from one build"
    if not addresses:
        yield f"holds none of the kernels {', '.join(kernels())}"
    for kernel, address in addresses.items():
        if address != base_address(board, kernel):
            yield f"has {kernel} at {address:#x}, registers.json of {board.name} says {base_address(board, kernel):#x}"


def _header(bit: Path) -> dict[str, str]:
    """The fields a and b of a .bit: a preamble, then tags with a length of two bytes (e, the data: of four)."""
    data = bit.read_bytes()
    try:
        at = 2 + int.from_bytes(data[:2], "big") + 2
        fields = {}
        for tag in b"abcd":
            length = int.from_bytes(data[at + 1 : at + 3], "big")
            if data[at] != tag:
                raise ValueError(f"field {chr(tag)} is missing")
            fields[chr(tag)] = data[at + 3 : at + 3 + length].rstrip(b"\0").decode()
            at += 3 + length
        size = int.from_bytes(data[at + 1 : at + 5], "big")
        if data[at : at + 1] != b"e" or len(data) != at + 5 + size:
            raise ValueError(f"{size} bytes of configuration are announced, {len(data) - at - 5} are there")
    except (ValueError, IndexError) as error:
        raise OverlayMismatch(f"{bit} is no whole bitstream ({error}): copy it again") from None
    return {"design": re.split("[;.]", fields["a"])[0], "part": fields["b"]}


def _handoff(hwh: Path) -> tuple[dict[str, str], dict[str, int]]:
    """What a .hwh says of the system, and the addresses of the kernels that are accelops'."""
    try:
        root = ET.parse(hwh).getroot()
    except ET.ParseError as error:
        raise OverlayMismatch(f"{hwh} is no hardware handoff ({error}): copy it again") from None
    system = root.find("SYSTEMINFO")
    names = {
        module.get("INSTANCE"): module.get("VLNV", "").removeprefix(VENDOR).split(":")[0]
        for module in root.iter("MODULE")
        if module.get("VLNV", "").startswith(VENDOR)
    }
    placed = {
        names[entry.get("INSTANCE")]: int(entry.get("BASEVALUE", "0"), 16)
        for entry in root.iter("MEMRANGE")
        if entry.get("INSTANCE") in names
    }
    return dict(system.attrib) if system is not None else {}, {k: placed[k] for k in kernels() if k in placed}


def find(board: Board, kernel: str, given: Path | None = None, emulated: bool = False) -> Overlay:
    """The first overlay for `board` that holds `kernel`; for an emulated board that nobody gave one, it is written into
    the cache folder. Raises OverlayMismatch with what was looked at and why none serves; a bitstream that the user named
    itself must serve, or the reason is raised at once."""
    looked: list[str] = []
    for bit in _bitstreams(given, emulated, looked):
        try:
            found = opened(board, bit)
        except OverlayMismatch as mismatch:
            if bit == given:
                raise
            looked.append(str(mismatch))
            continue
        if kernel in found.kernels and found.emulated == emulated:
            return found
        looked.append(f"{bit} holds {', '.join(found.kernels)}{' for emulation' if found.emulated else ''}")
    if emulated and given is None:
        return _written(board, kernel)
    raise OverlayMismatch(
        f"no overlay of {board.name} with the kernel {kernel}; looked at: {'; '.join(looked)}. Build one (make -C hls bit "
        f"BOARD={board.name} KERNELS='{' '.join(_together(board, kernel)[1])}') and give its path or set {FOLDER_VARIABLE}"
    )


def _together(board: Board, kernel: str) -> tuple[str, tuple[str, ...]]:
    """The overlay that the board's description puts `kernel` into: its name and its kernels."""
    return next((name, of_one) for name, of_one in board.overlays.items() if kernel in of_one)


def _written(board: Board, kernel: str) -> Overlay:
    from .emulator import handoff

    name, of_one = _together(board, kernel)
    return opened(board, handoff.write(board, of_one, cache_folder() / "emulated", f"{board.name}-{name}"))


def _bitstreams(given: Path | None, emulated: bool, looked: list[str]) -> Iterator[Path]:
    """In the order of search; what is looked at and is empty is added to `looked`. The cache folder holds emulated ones that
    may be of another version, so they are written anew instead of being looked at."""
    if given is not None and given.suffix == ".bit":
        yield given
        return
    variable = os.environ.get(FOLDER_VARIABLE)
    folders = [given, Path(variable) if variable else None, None if emulated else cache_folder()]
    for folder in folders:
        if folder is None:
            continue
        found = sorted(folder.rglob("*.bit")) if folder.is_dir() else []
        if not found:
            looked.append(f"{folder} (no .bit there)")
        yield from found
