"""Moments in 8 bits: blocks of 256 elements, each an index into a map of 256 numbers, times the largest magnitude of its
block (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"). Here from torch's ops, on any device: passes
of their own. triton/blockwise.py does the same within the step.

The map is their dynamic tree: seven decades from 1e-6 to 1; the leading one of an index says which, the bits behind it
divide the decade evenly, twice as finely in each that follows. The first moment is signed, the second is not and has the
bit of the sign for its fractions. A block is of 256 elements that follow each other in memory: with the scale 1.016 bytes
an element.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

BLOCK = 256
DECADES = 7


@lru_cache(maxsize=64)
def numbers(signed: bool, device: torch.device) -> Tensor:
    """The map: 256 fp32 numbers in ascending order, from -1 or 0 to 1. Index 127 of the signed one is 0."""
    magnitudes: list[float] = []
    for decade in range(DECADES):
        parts = 2 ** (decade + (not signed))
        magnitudes += [10.0 ** (decade - DECADES + 1) * (0.1 + 0.9 * (part + 0.5) / parts) for part in range(parts)]
    negative = [-m for m in reversed(magnitudes)] if signed else []
    return torch.tensor([*negative, 0.0, *magnitudes, 1.0], dtype=torch.float64, device="cpu").float().to(device)


@lru_cache(maxsize=64)
def _borders(signed: bool, device: torch.device) -> Tensor:
    """Halfway between the numbers."""
    exact = numbers(signed, torch.device("cpu")).double()
    return ((exact[1:] + exact[:-1]) / 2).float().to(device)


def blocks(numel: int) -> int:
    return -(-numel // BLOCK)


def zeros(like: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes and scales of zeros in the shape and memory order of `like`."""
    codes = torch.full_like(like, 127 if signed else 0, dtype=torch.uint8, memory_format=torch.preserve_format)
    return codes, torch.zeros(blocks(like.numel()), dtype=torch.float32, device=like.device)


def encoded(values: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes and scales of `values`, in their shape and memory order."""
    codes, scales = zeros(values, signed)
    encode_(codes, scales, values.to(torch.float32), signed)
    return codes, scales


def decoded(codes: Tensor, scales: Tensor, signed: bool) -> Tensor:
    """fp32, in the memory order of `codes`."""
    values = torch.empty_like(codes, dtype=torch.float32)
    if codes.numel():
        flat = numbers(signed, codes.device)[in_memory(codes).long()]
        in_memory(values).copy_(flat * scales.repeat_interleave(BLOCK)[: codes.numel()])
    return values


def encode_(codes: Tensor, scales: Tensor, values: Tensor, signed: bool) -> None:
    """Write the nearest codes, and the scales, of fp32 `values`. What is not finite spreads over its block."""
    if not codes.numel():
        return
    ordered = torch.empty_like(codes, dtype=torch.float32).copy_(values)
    flat = torch.nn.functional.pad(in_memory(ordered), (0, -codes.numel() % BLOCK)).view(-1, BLOCK)
    torch.amax(flat.abs(), 1, out=scales)
    shares = torch.where(scales[:, None] > 0, flat / scales[:, None], 0.0)
    found = torch.bucketize(shares, _borders(signed, codes.device), out_int32=True)
    in_memory(codes).copy_(found.flatten()[: codes.numel()])


def in_memory(tensor: Tensor) -> Tensor:
    """The elements of a dense tensor in the order of its memory."""
    return tensor.as_strided((tensor.numel(),), (1,))
