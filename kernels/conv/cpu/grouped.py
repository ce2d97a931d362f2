"""Grouped convolution with few channels per group (grouped.cpp): ResNeXt's 4 to 16, RegNet's 8; and the stem of a network,
one group of a few input channels."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import ConvSpec

MOST_CHANNELS = 32
STEM_INPUTS, STEM_OUTPUTS = 4, 64
RESULT = "benchmarks/results/resnext50.json"
STEM_RESULT = "benchmarks/results/resnet50.json"


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


def heuristic(spec: ConvSpec) -> tuple[Config | None, str]:
    """2D with few enough channels per group; 1D and 3D are not measured."""
    if spec.groups == 1:
        return _stem(spec)
    if spec.depthwise:
        return None, "one channel per group: the depthwise family is the faster one"
    channels = max(spec.weight[1], spec.out_channels // spec.groups)
    if spec.ndim == 2 and channels <= _widest(spec):
        return Config(block_channels=32), f"faster than torch up to {_widest(spec)} channels per group ({RESULT})"
    return None, f"torch is as fast or faster with {channels} channels per group, {spec.memory_format} ({RESULT})"


def _stem(spec: ConvSpec) -> tuple[Config | None, str]:
    """torch's weight gradient of a channels_last stem takes 1.15x (to 32 channels) to 1.7x (to 64) of our time, but 0.8x to
    16 channels; in every other direction and format it is faster."""
    if (
        spec.ndim == 2
        and spec.out_channels >= 32
        and (spec.direction, spec.memory_format, spec.dtype) == ("wgrad", "channels_last", "float32")
    ):
        return Config(), f"the weight gradient of a channels_last stem is faster than torch's ({STEM_RESULT})"
    return None, f"torch is faster on this direction, format or size of a stem ({STEM_RESULT})"


def _widest(spec: ConvSpec) -> int:
    """The most channels per group with which every measured case of this direction, dtype, format and stride is faster.

    torch computes a group of few channels as one of 16: 2 channels are 1.5x to 10x faster here, 4 channels 1.3x to 5x, 8
    channels 1.1x to 1.5x, 16 channels 0.4x to 0.7x. With 8 channels a stride leaves nothing (0.7x to 1.0x): staging
    reads a row once for every phase. In bfloat16 torch has dot
    products of pairs, we have not, so that little but its poor weight gradient is left (1.8x to 6x). torch's GELU of a
    contiguous tensor is faster than ours (0.7x forward with 8 channels); the other activations only add to the gain.
    """
    contiguous, wgrad = spec.memory_format == "contiguous", spec.direction == "wgrad"
    if spec.dtype == "bfloat16":
        return (8 if wgrad else 4) if contiguous else (4 if wgrad else 2)
    if spec.activation == "gelu" and contiguous and spec.direction == "fprop":
        return 4
    if max(spec.stride) > 1:
        return 4
    return 8
