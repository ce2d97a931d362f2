"""Grouped convolution with few channels per group (grouped.cpp): ResNeXt's 4 to 16, RegNet's 8; and the stem of a network,
one group of a few input channels."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import ConvSpec

MOST_CHANNELS = 32
STEM_INPUTS, STEM_OUTPUTS = 4, 64
RESULT = "benchmarks/results/resnext50.json"


@dataclass(frozen=True)
class Config:
    """`band_kib`: KiB of planes, input and output of one group together, that a band of rows may fill. `tile_channels`:
    result channels per register tile of fprop and dgrad, at most. `block_channels`: in channels_last, as many groups are
    staged at a time as have so many channels together."""

    band_kib: int = 96
    tile_channels: int = 8
    block_channels: int = 16


def unsupported(spec: ConvSpec) -> list[str]:
    reasons = []
    if spec.device != "cpu":
        reasons.append(f"runs on cpu tensors, not on {spec.device}")
    if spec.dtype not in ("float32", "bfloat16"):
        reasons.append(f"dtype {spec.dtype}: only float32 and bfloat16")
    if spec.transposed:
        reasons.append("transposed convolution")
    if spec.groups == 1:
        if spec.input[1] > STEM_INPUTS or spec.out_channels > STEM_OUTPUTS:
            reasons.append(
                f"groups=1 from {spec.input[1]} to {spec.out_channels} channels: only a stem of at most {STEM_INPUTS} to {STEM_OUTPUTS}"
            )
        return reasons
    channels = max(spec.weight[1], spec.out_channels // spec.groups)
    if not 1 <= channels <= MOST_CHANNELS:
        reasons.append(f"{channels} channels per group: only 1 to {MOST_CHANNELS}")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """A band within the L1 cache or the L2 cache; narrow and wide register tiles; one or two vectors of channels."""
    tiles = (4, 8) if spec.direction != "wgrad" else (8,)
    blocks = (16, 32) if spec.memory_format == "channels_last" else (16,)
    return [Config(band, tile, block) for band in (32, 96) for tile in tiles for block in blocks]


# Output widths from which the kernels won in 2D, per (2, 4, 8) channels per group. Measured against torch in the same format,
# batch 8, 16 to 512 channels, 7 to 112 wide. torch computes a group of few channels as one of 16: the fewer there are, the
# more is left. A short line costs a task as much as a long one; a stride reads a row once for every phase. In bfloat16 torch
# has dot products of pairs, we have not.
NEVER = 1 << 60
LEAST_WIDTH = {
    ("fprop", "contiguous", "float32", "stride 1"): (0, 14, 28),
    ("dgrad", "contiguous", "float32", "stride 1"): (0, 14, 28),
    ("wgrad", "contiguous", "float32", "stride 1"): (0, 0, 28),
    ("fprop", "channels_last", "float32", "stride 1"): (0, 0, 14),
    ("dgrad", "channels_last", "float32", "stride 1"): (0, 0, 14),
    ("wgrad", "channels_last", "float32", "stride 1"): (14, 28, 56),
    ("fprop", "contiguous", "float32", "strided"): (28, 28, NEVER),
    ("dgrad", "contiguous", "float32", "strided"): (0, 28, NEVER),
    ("wgrad", "contiguous", "float32", "strided"): (28, 14, NEVER),
    ("fprop", "channels_last", "float32", "strided"): (0, 28, NEVER),
    ("dgrad", "channels_last", "float32", "strided"): (0, 0, NEVER),
    ("wgrad", "channels_last", "float32", "strided"): (28, 28, NEVER),
    ("fprop", "contiguous", "bfloat16", "stride 1"): (0, 28, NEVER),
    ("dgrad", "contiguous", "bfloat16", "stride 1"): (0, 28, NEVER),
    ("wgrad", "contiguous", "bfloat16", "stride 1"): (0, 0, 14),
    ("fprop", "channels_last", "bfloat16", "stride 1"): (0, NEVER, NEVER),
    ("dgrad", "channels_last", "bfloat16", "stride 1"): (0, NEVER, NEVER),
    ("wgrad", "channels_last", "bfloat16", "stride 1"): (0, 0, NEVER),
    ("fprop", "contiguous", "bfloat16", "strided"): (0, 56, NEVER),
    ("dgrad", "contiguous", "bfloat16", "strided"): (0, 56, NEVER),
    ("wgrad", "contiguous", "bfloat16", "strided"): (0, 0, NEVER),
    ("fprop", "channels_last", "bfloat16", "strided"): (0, NEVER, NEVER),
    ("dgrad", "channels_last", "bfloat16", "strided"): (0, NEVER, NEVER),
    ("wgrad", "channels_last", "bfloat16", "strided"): (0, 28, NEVER),
}


def heuristic(spec: ConvSpec) -> tuple[Config | None, str]:
    """2D with few enough channels per group on lines that are long enough; 1D and 3D are not measured."""
    if spec.depthwise:
        return None, "one channel per group: the depthwise family is the faster one"
    if spec.ndim != 2:
        return None, f"not measured in {spec.ndim}D"
    if spec.groups == 1:
        return _stem(spec)
    channels = max(spec.weight[1], spec.out_channels // spec.groups)
    least = _least_width(spec, channels)
    if spec.output[-1] >= least:
        return Config(block_channels=32), f"faster than torch with {channels} channels per group ({RESULT})"
    where = f"{channels} channels per group, {spec.memory_format}"
    return (
        None,
        f"torch is as fast or faster with {where}{'' if least == NEVER else f', below a width of {least}'} ({RESULT})",
    )


def _stem(spec: ConvSpec) -> tuple[Config | None, str]:
    """The gradient for the image, which training does not ask for: 1.5x to 3.9x; the rest torch does in 0.3x to 1.1x of our time."""
    if spec.direction == "dgrad" and spec.dtype == "float32" and min(spec.kernel) >= 3 and set(spec.stride) == {2}:
        return Config(), f"the data gradient of a stem is faster than torch's ({RESULT})"
    return None, f"torch is faster on this direction or size of a stem ({RESULT})"


def _least_width(spec: ConvSpec, channels: int) -> int:
    step = "strided" if max(spec.stride) > 1 else "stride 1"
    if channels > 8:
        return NEVER
    if channels > 4 and (spec.direction, spec.memory_format, spec.activation) == ("fprop", "contiguous", "gelu"):
        return NEVER  # torch's GELU of a contiguous tensor is faster than ours: 0.7x
    return LEAST_WIDTH[spec.direction, spec.memory_format, spec.dtype, step][
        0 if channels <= 2 else 1 if channels <= 4 else 2
    ]
