"""The depthwise family: which Specs depthwise.cpp serves, with which tiles, and where it was measured faster than torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..spec import ConvSpec


@dataclass(frozen=True)
class Config:
    """The tiles of depthwise_plan.hpp: `block_rows` result rows are held in registers (1 to 14); where vector lanes run over
    channels a block holds `vectors` vectors of them; a box of results and what it gathers from touch about `cache_kib` KiB;
    `over_channels` lets lanes run over channels in contiguous tensors too, whose lines are transposed on the way."""

    block_rows: int = 14
    vectors: int = 2
    cache_kib: int = 512
    over_channels: bool = False


def unsupported(spec: ConvSpec) -> list[str]:
    reasons = []
    if spec.device != "cpu":
        reasons.append(f"runs on cpu tensors, not on {spec.device}")
    if spec.dtype not in ("float32", "bfloat16"):
        reasons.append(f"dtype {spec.dtype}: only float32 and bfloat16")
    if not spec.depthwise:
        reasons.append(f"groups={spec.groups} of {spec.input[1]} channels: every channel must have a filter of its own")
    elif spec.out_channels != spec.groups:
        reasons.append(f"{spec.out_channels // spec.groups} filters per channel: only one")
    if spec.transposed and spec.direction == "wgrad" and spec.bias:
        reasons.append("the bias gradient of a transposed convolution")
    if prod(spec.stride) > 64:
        reasons.append(f"stride {spec.stride}: at most 64 steps in all")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """The first is the one to take unmeasured."""
    if spec.memory_format == "channels_last":
        return [Config(rows, v, kib) for kib in (512, 128, 1536) for v in (2, 1, 4) for rows in (14, 8, 4)]
    lanes = [(False, 1)]
    if spec.ndim > 1:
        # Lines of 14 fill a vector of 16, but 7x7 kernels on them gain 1.2x and on lines of 7 1.6x from full ones.
        lanes.insert(0 if spec.output[-1] <= 16 else 1, (True, 2))
    return [Config(rows, v, kib, over) for over, v in lanes for kib in (512, 128, 1536) for rows in (14, 8, 4)]


def heuristic(spec: ConvSpec) -> tuple[Config | None, str]:
    return None, "not measured yet"
