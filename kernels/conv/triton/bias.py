"""The bias gradient by itself, where the weight gradient's kernel does not meet each element of grad_output just once: in a
transposed convolution, whose output is the side that the taps lie on."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from accelops.targets import triton as gpu

from ..problem import Problem
from ..spec import ConvSpec
from .tiles import add_splits, through


@triton.jit
def sum_pixels(
    gradient, saved, partial, C, PIXELS, BLOCKS_C, BLOCKS, BLOCKS_EACH, BLOCKS_OF_IMAGE,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, ACTIVATION: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """BLOCK_C channels, over a share of the BLOCKS blocks of BLOCK_P pixels that all images have."""
    c = tl.program_id(0) % BLOCKS_C * BLOCK_C + tl.arange(0, BLOCK_C)
    split = tl.program_id(0) // BLOCKS_C
    sums = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    for block in range(split * BLOCKS_EACH, tl.minimum((split + 1) * BLOCKS_EACH, BLOCKS)):
        n = block // BLOCKS_OF_IMAGE
        if WIDE:
            n = tl.cast(n, tl.int64)
        pixel = block % BLOCKS_OF_IMAGE * BLOCK_P + tl.arange(0, BLOCK_P)
        if CHANNELS_LAST:
            at = (n * PIXELS + pixel)[None, :] * C + c[:, None]
        else:
            at = (n * C + c)[:, None] * PIXELS + pixel[None, :]
        inside = (c < C)[:, None] & (pixel < PIXELS)[None, :]
        value = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        if ACTIVATION != "none":
            value = through(value, tl.load(saved + at, mask=inside, other=0.0).to(tl.float32), ACTIVATION)
        sums += value
    tl.store(partial + split * C + c, tl.sum(sums, 1), mask=c < C)


def bias_gradient(spec: ConvSpec, p: Problem, grad_output: Tensor, saved: Tensor | None) -> Tensor:
    """(K,): grad_output (N, K, ...), through the activation's slope, summed over images and pixels."""
    grad_bias = grad_output.new_empty(spec.out_channels)
    if not grad_output.numel():
        return grad_bias.zero_()
    channels = spec.out_channels
    pixels = grad_output.numel() // (p.n * channels)
    block_c, block_p = (64, 16) if p.channels_last else (4, 256)
    blocks_c, of_image = -(-channels // block_c), -(-pixels // block_p)
    wanted = max(1, 4 * gpu.architecture().multiprocessors // blocks_c)
    each = -(-p.n * of_image // wanted)
    splits = -(-p.n * of_image // each)
    partial = torch.empty(splits, channels, dtype=torch.float32, device=grad_output.device)
    gpu.launch(
        sum_pixels,
        (blocks_c * splits,),
        grad_output, saved, partial, channels, pixels, blocks_c, p.n * of_image, each, of_image,
        CHANNELS_LAST=p.channels_last,
        WIDE=p.wide,
        ACTIVATION=spec.activation,
        BLOCK_C=block_c,
        BLOCK_P=block_p,
        num_warps=4,
    )  # fmt: skip
    add_splits(partial, grad_bias)
    return grad_bias
