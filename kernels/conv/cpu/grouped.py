"""Grouped convolution with few channels per group (grouped.cpp): ResNeXt's 4 to 16, RegNet's 8."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import ConvSpec

MOST_CHANNELS = 32


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
        reasons.append("groups=1: a dense convolution")
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
    return None, ""
