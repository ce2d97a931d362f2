"""The depthwise family: what depthwise.cpp serves, with which tiles, and where it was measured faster than torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..spec import ConvSpec

RESULTS = "benchmarks/results: mobilenet_v3.json, convnext.json, conformer.json, unet3d.json"


@dataclass(frozen=True)
class Config:
    """The tiles of depthwise_plan.hpp: `block_rows` result rows are held in registers (1 to 14); where vector lanes run
    over channels a block holds `vectors` vectors of them (1 to 4); a box of results and what it gathers from touch about
    `cache_kib` KiB; `over_channels` lets lanes run over channels in contiguous tensors too, whose lines are transposed
    on the way."""

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


# The output width from which the kernels won, per (3x3, 5x5, 7x7): below it lines are too short for what a task costs,
# and without one the memory is the limit and torch is as near to it. Measured against torch in the same format, batch 8,
# on the 2D layers of MobileNetV2, MobileNetV3 and ConvNeXt-T, 7 to 112 wide.
NEVER = 1 << 60
LEAST_WIDTH = {
    ("fprop", "contiguous", "float32", "stride 1"): (28, 28, 28),
    ("fprop", "contiguous", "float32", "strided"): (28, 28, 28),
    ("fprop", "contiguous", "bfloat16", "stride 1"): (56, 28, 28),
    ("fprop", "contiguous", "bfloat16", "strided"): (56, NEVER, NEVER),
    ("fprop", "channels_last", "float32", "stride 1"): (112, 14, 14),
    ("fprop", "channels_last", "float32", "strided"): (NEVER, NEVER, 28),
    ("dgrad", "contiguous", "float32", "stride 1"): (28, 28, 28),
    ("dgrad", "contiguous", "float32", "strided"): (28, 28, 28),
    ("dgrad", "contiguous", "bfloat16", "stride 1"): (56, 28, 28),
    ("dgrad", "contiguous", "bfloat16", "strided"): (1, 1, 1),
    ("dgrad", "channels_last", "float32", "stride 1"): (28, 1, 1),
    ("dgrad", "channels_last", "bfloat16", "stride 1"): (NEVER, NEVER, 1),
    ("dgrad", "channels_last", "bfloat16", "strided"): (1, 1, 1),
    ("wgrad", "contiguous", "float32", "stride 1"): (56, 1, 1),
    ("wgrad", "contiguous", "float32", "strided"): (56, 1, 1),
    ("wgrad", "contiguous", "bfloat16", "stride 1"): (56, 1, 1),
    ("wgrad", "contiguous", "bfloat16", "strided"): (56, 1, 1),
    ("wgrad", "channels_last", "float32", "stride 1"): (28, 1, 1),
    ("wgrad", "channels_last", "float32", "strided"): (NEVER, 1, 1),
    ("wgrad", "channels_last", "bfloat16", "stride 1"): (28, 1, 1),
    ("wgrad", "channels_last", "bfloat16", "strided"): (28, 1, 1),
}


def heuristic(spec: ConvSpec) -> tuple[Config | None, str]:
    """The first Config where it was measured to win."""
    if spec.transposed or max(spec.dilation) > 1 or min(spec.kernel) < 3:
        return None, "not measured for transposed, dilated or small kernels"
    losing = _loses(spec)
    if losing:
        return None, f"{losing} ({RESULTS})"
    return configs(spec)[0], f"faster than torch on such layers ({RESULTS})"


def _loses(spec: ConvSpec) -> str:
    """Where torch is as fast or faster; empty elsewhere."""
    if spec.ndim == 1:
        # torch's dgrad of many taps is a good one (0.9x to 1.3x); in all else the kernels won 1.4x and more.
        many = spec.direction == "dgrad" and spec.dtype == "float32" and spec.kernel[0] > 7
        return "torch's 1D data gradient of many taps is as fast" if many else ""
    if spec.ndim == 3:
        # 1.3x and more but for this one: 0.5x.
        slow = (spec.direction, spec.memory_format, spec.dtype) == ("fprop", "channels_last", "bfloat16")
        return "torch's 3D bfloat16 forward is faster channels_last" if slow else ""
    step = "strided" if max(spec.stride) > 1 else "stride 1"
    widths = LEAST_WIDTH.get((spec.direction, spec.memory_format, spec.dtype, step), (NEVER,) * 3)
    taps = prod(spec.kernel)
    least = widths[0 if taps < 25 else 1 if taps < 49 else 2]
    if spec.output[-1] >= least:
        return ""
    return "torch is as fast on such layers" if least == NEVER else f"torch is as fast below an output width of {least}"
