"""The pointwise family: which Specs pointwise.cpp serves, with which blocks, and where it was measured faster than torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..spec import ConvSpec

RESULT = "benchmarks/results/resnet50.json"
WIDE_IMAGE = 28 * 28
GELU_IMAGE = 56 * 56
MANY_WEIGHTS = 1 << 16


@dataclass(frozen=True)
class Config:
    """`block_kib`: KiB of pixels, all their source channels, that are packed at a time in fprop and dgrad."""

    block_kib: int = 384


def unsupported(spec: ConvSpec) -> list[str]:
    reasons = []
    if spec.device != "cpu":
        reasons.append(f"runs on cpu tensors, not on {spec.device}")
    if spec.dtype != "float32":
        reasons.append(f"dtype {spec.dtype}: only float32")
    if spec.transposed:
        reasons.append("transposed convolution")
    if spec.groups != 1:
        reasons.append(f"groups={spec.groups}: only 1")
    if prod(spec.kernel) != 1:
        reasons.append(f"kernel {spec.kernel}: only 1 in every dimension")
    if any(spec.padding):
        reasons.append(f"padding {spec.padding}: only 0")
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """Blocks of pixels of an eighth to half of a megabyte of L2 cache; the weight gradient has nothing to choose."""
    return [Config()] if spec.direction == "wgrad" else [Config(384), Config(128), Config(512)]


def heuristic(spec: ConvSpec) -> tuple[Config | None, str]:
    """2D. Contiguous images of at least WIDE_IMAGE pixels, stride 1; channels_last where `_wins_channels_last`.

    On contiguous images torch reorders to its blocked format and back: 1.1x to 2.5x on 28x28 and more, 0.8x to 1.0x on 14x14
    and 7x7. GELU costs more than the product where there are few channels to sum over (0.7x to 0.9x below 64), and the
    weight gradient of many weights on few pixels is bound by the product alone (0.91x to 0.97x from 256 x 512 on 28x28).
    """
    pixels = prod(spec.output[2:])
    if spec.ndim != 2:
        return None, f"torch is as fast in {spec.ndim}D ({RESULT})"
    if spec.memory_format == "channels_last":
        won = _wins_channels_last(spec)
        return (
            Config() if won else None,
            f"{'faster than torch' if won else 'torch is as fast'} on such layers ({RESULT})",
        )
    if max(spec.stride) > 1 or pixels < WIDE_IMAGE:
        return None, f"torch is as fast with stride {max(spec.stride)} on {pixels} pixels ({RESULT})"
    if spec.direction == "wgrad" and prod(spec.weight) >= MANY_WEIGHTS and pixels < 4 * WIDE_IMAGE:
        return None, f"torch's weight gradient of {prod(spec.weight)} weights on {pixels} pixels is as fast ({RESULT})"
    if spec.activation == "gelu" and (spec.input[1] < 64 or pixels < GELU_IMAGE):
        return None, f"torch is as fast with GELU on {spec.input[1]} channels, {pixels} pixels ({RESULT})"
    return Config(), f"faster than torch on contiguous images of {WIDE_IMAGE} pixels and more ({RESULT})"


def _wins_channels_last(spec: ConvSpec) -> bool:
    """A product like torch's (0.7x to 1.1x) but for the smallest images (1.03x to 1.13x) and for strides, where torch copies the
    pixels that are read: data gradient 1.1x to 1.9x, forward of few channels 1.2x to 1.35x, weight gradient 1.1x."""
    if spec.activation != "none":
        return False
    if max(spec.stride) == 1:
        return spec.direction != "wgrad" and 4 <= spec.output[-1] <= 7
    few = spec.input[1] <= (152 if spec.direction == "fprop" else 56)
    return spec.direction == "dgrad" or (few and (spec.direction == "wgrad" or spec.output[-1] <= 28))
