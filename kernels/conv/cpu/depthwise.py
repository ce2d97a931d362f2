"""The depthwise family: what depthwise.cpp serves, with which tiles, and where it was measured faster than torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..spec import ConvSpec

RESULTS = "benchmarks/results: mobilenet_v3.json, convnext.json, conformer.json, x3d.json"


@dataclass(frozen=True)
class Config:
    """The tiles of depthwise_plan.hpp: `block_rows` result rows are held in registers (1 to 14); where vector lanes run
    over channels a block holds `vectors` vectors of them (1 to 4); a box of results and what it gathers from touch about
    `cache_kib` KiB; `over_channels` lets lanes run over channels in contiguous tensors too, whose lines are transposed
    on the way. `direct` is the kernel of depthwise_direct.cpp instead, which has no tiles but for `cache_kib`: what a
    slab of channels_last lines holds."""

    block_rows: int = 14
    vectors: int = 2
    cache_kib: int = 512
    over_channels: bool = False
    direct: bool = False


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
        direct = [Config(cache_kib=kib, direct=True) for kib in (128, 48, 384)] if _serves_direct(spec) else []
        return direct + [Config(rows, v, kib) for kib in (512, 128, 1536) for v in (2, 1, 4) for rows in (14, 8, 4)]
    lanes = [(False, 1)]
    if spec.ndim > 1:
        # Lines of 14 fill a vector of 16, but 7x7 kernels on them gain 1.2x and on lines of 7 1.6x from full ones.
        lanes.insert(0 if spec.output[-1] <= 16 else 1, (True, 2))
    staged = [Config(rows, v, kib, over) for over, v in lanes for kib in (512, 128, 1536) for rows in (14, 8, 4)]
    if not _serves_direct(spec):
        return staged
    # Transposed images gain up to 3.1x on short lines and lose up to 1.8x on long ones.
    short = spec.ndim > 1 and spec.output[-1] <= (32 if spec.ndim == 2 else 56)
    return [Config(direct=True), *staged] if short else [*staged, Config(direct=True)]


def _serves_direct(spec: ConvSpec) -> bool:
    """What depthwise_goes_direct says with the widest vectors."""
    if spec.direction == "wgrad" or spec.groups < 16:
        return False
    if spec.direction == "dgrad" and spec.memory_format == "channels_last" and spec.activation != "none":
        return False
    return max(spec.stride) == 1 or (spec.direction == "fprop") != spec.transposed


# Output widths at which the kernels won, per (3x3, 5x5, 7x7): up to the first number, and from the second on. Between, and
# without any, memory is the limit and torch is as near to it. Measured against torch in the same format, batch 8, on the
# 2D layers of MobileNetV2, MobileNetV3 and ConvNeXt-T and their like, 7 to 112 wide, with all of the memory bandwidth and with
# 0.6 of it: only what won in both stands here (3x3 on lines of 14 has 1.2x to 1.4x with all of it, and 0.9x without).
NEVER = 1 << 60
Widths = tuple[int, int]
ALL, NONE = (NEVER, 0), (-1, NEVER)
WON: dict[tuple[str, str, str, str], tuple[Widths, Widths, Widths]] = {
    ("fprop", "contiguous", "float32", "stride 1"): (ALL, ALL, ALL),
    ("fprop", "contiguous", "float32", "strided"): ((-1, 28), (-1, 14), (-1, 14)),
    ("fprop", "contiguous", "bfloat16", "stride 1"): (ALL, ALL, ALL),
    ("fprop", "contiguous", "bfloat16", "strided"): (ALL, ALL, ALL),
    ("fprop", "channels_last", "float32", "stride 1"): (NONE, (-1, 14), ALL),
    ("fprop", "channels_last", "float32", "strided"): (NONE, (-1, 28), (-1, 14)),
    ("dgrad", "contiguous", "float32", "stride 1"): (ALL, ALL, ALL),
    ("dgrad", "contiguous", "float32", "strided"): ((-1, 28), ALL, ALL),
    ("dgrad", "contiguous", "bfloat16", "stride 1"): (ALL, ALL, ALL),
    ("dgrad", "contiguous", "bfloat16", "strided"): (ALL, ALL, ALL),
    ("dgrad", "channels_last", "float32", "stride 1"): ((-1, 56), ALL, ALL),
    ("dgrad", "channels_last", "bfloat16", "stride 1"): (NONE, (14, NEVER), ALL),
    ("dgrad", "channels_last", "bfloat16", "strided"): (ALL, ALL, ALL),
    ("wgrad", "contiguous", "float32", "stride 1"): ((-1, 56), ALL, ALL),
    ("wgrad", "contiguous", "float32", "strided"): ((-1, 56), ALL, ALL),
    ("wgrad", "contiguous", "bfloat16", "stride 1"): ((-1, 56), ALL, ALL),
    ("wgrad", "contiguous", "bfloat16", "strided"): ((-1, 56), ALL, ALL),
    ("wgrad", "channels_last", "float32", "stride 1"): ((-1, 28), ALL, ALL),
    ("wgrad", "channels_last", "float32", "strided"): (NONE, ALL, ALL),
    ("wgrad", "channels_last", "bfloat16", "stride 1"): ((-1, 28), ALL, ALL),
    ("wgrad", "channels_last", "bfloat16", "strided"): ((-1, 28), ALL, ALL),
}


_BLOCK_OF_16 = (("contiguous", "float32", "strided"), ("channels_last", "float32", "stride 1"))


def heuristic(spec: ConvSpec) -> tuple[Config | None, str]:
    """The first Config where it was measured to win."""
    if spec.transposed or max(spec.dilation) > 1 or (min if spec.ndim < 3 else max)(spec.kernel) < 3:
        return None, "not measured for transposed, dilated or small kernels"
    short, long = _won_1d(spec) if spec.ndim == 1 else _won_2d(spec) if spec.ndim == 2 else _won_3d(spec)
    if spec.output[-1] <= short or spec.output[-1] >= long:
        return configs(spec)[0], f"faster than torch on such layers ({RESULTS})"
    where = "such layers" if (short, long) == NONE else f"lines of {spec.output[-1]}"
    return None, f"torch is as fast on {where} ({RESULTS})"


def _won_1d(spec: ConvSpec) -> Widths:
    """torch's dgrad of many taps is a good one (0.9x to 1.5x); in all else the kernels won 1.3x and more."""
    return NONE if spec.direction == "dgrad" and spec.dtype == "float32" and spec.kernel[0] > 7 else ALL


def _won_2d(spec: ConvSpec) -> Widths:
    step = "strided" if max(spec.stride) > 1 else "stride 1"
    key = (spec.direction, spec.memory_format, spec.dtype, step)
    taps, channels = prod(spec.kernel), spec.groups
    if taps < 25 and channels <= 16 and key[0] != "dgrad" and key[1:] in _BLOCK_OF_16:
        return NONE  # 0.8x to 0.95x: torch computes in blocks of 16 channels, and needs one
    if taps < 25 and channels > 384 and key == ("fprop", "contiguous", "float32", "stride 1"):
        return 7, 28  # 0.9x to 1.2x
    return WON.get(key, (NONE,) * 3)[0 if taps < 25 else 1 if taps < 49 else 2]


def _won_3d(spec: ConvSpec) -> Widths:
    """1.6x and more, but for the channels_last forward, which torch does well too."""
    if (spec.direction, spec.memory_format) != ("fprop", "channels_last"):
        return ALL
    return (14, 56) if spec.dtype == "float32" and max(spec.stride) == 1 and min(spec.kernel) == 3 else NONE
