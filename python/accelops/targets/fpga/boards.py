"""The boards, as hls/boards/*.json describe them: the one place where a part, a clock or a size is written down.

Sources: the boards' user guides (TUL PYNQ-Z2; AMD UG1267 for ZCU104, UG1089 for KV260, DS962 for U250) and the parts'
data sheets. `bytes_per_second` of the memory is its peak by arithmetic, transfers per second times bytes, not measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

FAMILIES = ("zynq7000", "zynquplus", "alveo")
FLOATS = 32  # bits of a float


def hls_folder() -> Path:
    """Where the sources of the kernels lie, in a checkout as in an installed package."""
    return Path(str(files("accelops.hls")))


@dataclass(frozen=True)
class Memory:
    """DDR: `bytes` in all, peak `bytes_per_second` of all `banks` together."""

    bytes: int
    bytes_per_second: int
    banks: int


@dataclass(frozen=True)
class Ports:
    """AXI ports from the fabric to memory: each moves `bits` per cycle in each direction."""

    number: int
    bits: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Burst:
    """How kernels ask for memory: at most `beats` a burst, `outstanding` bursts under way; `read_latency_cycles` is an
    assumption, from a request to its first beat."""

    beats: int
    outstanding: int
    read_latency_cycles: int


@dataclass(frozen=True)
class Board:
    """One board. `control_base` is the address of the first kernel's registers, those of the next lie `control_stride`
    bytes further; None where the platform assigns addresses (Alveo). `overlays` are the kernels that it holds at a time, as
    many as its DSPs are enough for by arithmetic; those of `fabric_adders` add without DSPs. `sizes` are those of each
    kernel's buffers."""

    name: str
    title: str
    part: str
    board_part: str | None
    family: str
    platform: str | None
    clock_mhz: int
    control_base: int | None
    control_stride: int
    ddr: Memory
    ports: Ports
    resources: dict[str, int]
    overlays: dict[str, tuple[str, ...]]
    fabric_adders: tuple[str, ...]
    burst: Burst
    stream_depth: int
    sizes: dict[str, dict[str, int]]

    @property
    def float_lanes(self) -> int:
        """fp32 numbers in a beat; it holds twice as many bf16."""
        return self.ports.bits // FLOATS

    @property
    def beat_bytes(self) -> int:
        return self.ports.bits // 8

    @property
    def flow(self) -> str:
        """What Vitis HLS calls the flow: an IP for a block design, or a kernel for a platform."""
        return "vitis" if self.family == "alveo" else "vivado"


KERNEL_SIZES = ("reduce", "conv_int8", "conv_fp32")


def names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (hls_folder() / "boards").glob("*.json")))


@cache
def board(name: str) -> Board:
    """The board `name`. Raises ValueError for a board that is not described, or described wrongly."""
    if name not in names():
        raise ValueError(f"board={name!r} is not described in hls/boards; choose one of {', '.join(names())}")
    described: dict[str, Any] = json.loads((hls_folder() / "boards" / f"{name}.json").read_text())
    base = described.pop("control_base")
    ports = described.pop("ports")
    result = Board(
        control_base=None if base is None else int(base, 16),
        ddr=Memory(**described.pop("ddr")),
        ports=Ports(ports["number"], ports["bits"], tuple(ports["names"])),
        overlays={overlay: tuple(of_one) for overlay, of_one in described.pop("overlays").items()},
        fabric_adders=tuple(described.pop("fabric_adders")),
        burst=Burst(**described.pop("burst")),
        sizes={kernel: described.pop(kernel) for kernel in KERNEL_SIZES},
        **described,
    )
    _check(result, name)
    return result


def _check(board: Board, name: str) -> None:
    wrong = {
        f"name={board.name!r} is not that of its file": board.name != name,
        f"family={board.family!r} is none of {FAMILIES}": board.family not in FAMILIES,
        f"ports.bits={board.ports.bits} is not 64, 128, 256 or 512": board.ports.bits not in (64, 128, 256, 512),
        f"ports.names has not {board.ports.number} names": len(board.ports.names) != board.ports.number,
        "reduce.tile_beats is odd": board.sizes["reduce"]["tile_beats"] % 2 != 0,
        "platform is needed, as for any Alveo card": board.family == "alveo" and not board.platform,
    }
    for engine, bits in (("conv_int8", 8), ("conv_fp32", 32)):
        array = board.sizes[engine]
        wrong |= {
            f"{engine}.inputs is not a multiple of {engine}.outputs": array["inputs"] % array["outputs"] != 0,
            f"{engine}.outputs are not whole beats": array["outputs"] * bits % board.ports.bits != 0,
            f"{engine}.inputs are not as many blocks of {engine}.outputs for each of its ports": array["inputs"]
            % (array["outputs"] * array.get("ports", 1))
            != 0,
        }
    reasons = [reason for reason, holds in wrong.items() if holds]
    if reasons:
        raise ValueError(f"hls/boards/{name}.json: {'; '.join(reasons)}")
