"""How the operands of hls/conv lie in a board's memory (tiles.hpp): channels in blocks of the array's outputs, each group
padded with zeros to whole words of its inputs. Tensors are (images, groups, channels, rows, columns), weights
(groups, outputs, inputs, taps, taps)."""

from __future__ import annotations

import torch
from torch import Tensor

from accelops.targets.fpga.model import ceil_div


def images(x: Tensor, inputs: int, outputs: int) -> Tensor:
    """N, groups, blocks of channels, H, W, channels of a block."""
    n, groups, channels, *plane = x.shape
    whole = _padded(x, (n, groups, ceil_div(channels, inputs) * inputs, *plane))
    return whole.unflatten(2, (-1, outputs)).permute(0, 1, 2, 4, 5, 3).contiguous()


def weights(w: Tensor, inputs: int, outputs: int) -> Tensor:
    """Groups, blocks of outputs, words of inputs, R, S, outputs of a block, inputs of a word."""
    groups, k, c, *taps = w.shape
    whole = _padded(w, (groups, ceil_div(k, outputs) * outputs, ceil_div(c, inputs) * inputs, *taps))
    return whole.unflatten(2, (-1, inputs)).unflatten(1, (-1, outputs)).permute(0, 1, 3, 5, 6, 2, 4).contiguous()


def bias(b: Tensor, outputs: int) -> Tensor:
    """(groups, outputs), padded to whole blocks."""
    return _padded(b, (b.shape[0], ceil_div(b.shape[1], outputs) * outputs))


def results(flat: Tensor, shape: tuple[int, ...], outputs: int) -> Tensor:
    """The `shape` (N, groups, K, P, Q) out of N, groups, blocks, P, Q, outputs of a block."""
    n, groups, k, *plane = shape
    blocks = flat.view(n, groups, ceil_div(k, outputs), *plane, outputs)
    return blocks.permute(0, 1, 2, 5, 3, 4).flatten(2, 3)[:, :, :k]


def _padded(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) == shape:
        return tensor
    padded = torch.zeros(shape, dtype=tensor.dtype)
    padded[tuple(slice(size) for size in tensor.shape)] = tensor
    return padded
