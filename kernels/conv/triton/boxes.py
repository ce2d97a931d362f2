"""The boxes family: stride 1 in channels_last on a GPU that loads boxes of a tensor by descriptors of it.

A descriptor says where a tensor lies, its shape and strides, and the box that one instruction moves; it takes addresses and
strides of whole 16 bytes. An operand that lies otherwise is copied first, which reads and writes it once more.
Bytes and flops: see boxes_kernels.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import prod
from typing import Any

from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from accelops.targets import triton as gpu

from ...spec import ITEMSIZE
from ..problem import Problem, Triple, problem, walk
from ..spec import ConvSpec
from . import directions, gemm
from .boxes_kernels import convolve_boxes, correlate_boxes
from .tiles import aligned

ALIGNMENT = 16  # bytes
# So many programs of a multiprocessor have warps enough to wait for each other's loads and results.
MOST_PROGRAMS = 4
Box = tuple[int, int, int, int]
AXES = ("BOX_I", "BOX_D", "BOX_H", "BOX_W")
OF_TAPS = ("taps", "padding", "dilation")


@dataclass(frozen=True)
class Config(gemm.Tile):
    """A box has `block_m` pixels, in wgrad `block_k`. In the others `programs` share a multiprocessor, each with as many tiles
    as it takes until all are done; with `flat` taps and channels are one loop."""

    programs: int = 1
    flat: bool = False


def unsupported(spec: ConvSpec) -> list[str]:
    p, chip = problem(spec), gpu.architecture()
    reasons = gemm.unsupported(spec, p)
    if not chip.descriptors:
        reasons.append(f"{chip.name}: only sm_90 and newer load by descriptors")
    if not p.channels_last:
        reasons.append(f"memory_format={spec.memory_format}: only channels_last")
    if set(p.stride) != {1}:
        reasons.append(f"stride={spec.stride}: only 1")
    if p.groups != 1:
        reasons.append(f"groups={p.groups}: only 1")
    if 0 in (p.c, p.k, *p.image, *p.result):
        reasons.append("a size of 0: a descriptor has none")
    whole = ALIGNMENT // ITEMSIZE[spec.dtype]
    if p.c % whole or p.k % whole:
        reasons.append(
            f"{p.c} and {p.k} channels: only multiples of {whole}, which are {ALIGNMENT} bytes of {spec.dtype}"
        )
    return reasons


def configs(spec: ConvSpec) -> list[Config]:
    """The first is the one to take unmeasured."""
    p = problem(spec)
    if p.kind == "wgrad":
        tiles = [Config(128, 128, 64, num_warps=8), Config(128, 64, 64), Config(64, 128, 64), Config(64, 64, 64)]
    else:
        tiles = [
            Config(128, 128, 64, num_warps=8, num_stages=2),
            Config(128, 64, 64),
            # Triton has compiled loops over taps and channels wrongly for 8 warps (pytorch/pytorch#177823).
            Config(128, 128, 64, num_stages=4, flat=True),
            Config(128, 64, 64, num_stages=4, flat=True),
            Config(64, 64, 64, num_stages=4, flat=True),
        ]
    if gemm.slope(spec):  # another tile, of saved values
        tiles = [replace(tile, block_k=32, num_stages=tile.num_stages + 1) for tile in tiles]
    found = gemm.fitted(tiles, spec, p)
    return found if p.kind == "wgrad" else list(dict.fromkeys(_shared(tile, spec) for tile in found))


def _shared(tile: Config, spec: ConvSpec) -> Config:
    """`tile` with as many stages as leave shared memory for a tile of results, and with as many programs as a
    multiprocessor has shared memory for."""
    memory, itemsize, slope = gpu.architecture().shared_memory, ITEMSIZE[spec.dtype], gemm.slope(spec)
    results = tile.block_m * tile.block_n * itemsize
    stage = (tile.block_m * (1 + slope) + tile.block_n) * tile.block_k * itemsize
    stages = max(1, min(tile.num_stages, (memory - results) // stage))
    programs = max(1, min(MOST_PROGRAMS, memory // (results + stages * stage)))
    return replace(tile, num_stages=stages, programs=programs)


def run(
    config: Config, spec: ConvSpec, first: Tensor, second: Tensor, third: Tensor | None = None, save: bool = False
) -> Any:
    """See kernels/conv/native.py: run."""
    p = problem(spec)
    return directions.run(
        partial(_convolve, config, spec, p), partial(_correlate, config, spec, p), spec, p, first, second, third, save
    )


def _convolve(
    config: Config,
    spec: ConvSpec,
    p: Problem,
    source: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    saved: Tensor | None,
    out: Tensor,
    before: Tensor | None,
) -> None:
    gather = p.kind == "gather"
    source_sizes, sizes = (p.image, p.result) if gather else (p.result, p.image)
    source_c, out_c = (p.c, p.k) if gather else (p.k, p.c)
    box = _box(config.block_m, p.n, sizes)
    blocks = [-(-size // edge) for size, edge in zip((p.n, *sizes), box, strict=True)]
    blocks_m, blocks_n = prod(blocks), -(-out_c // config.block_n)
    walks = dict(zip("DHW", (walk(p, i) for i in range(3)), strict=True))
    loaded = (p, source_sizes, source_c, box, config.block_k)
    stored = (p, sizes, out_c, box, config.block_n)
    of_weight = (config.block_n, config.block_k) if gather else (config.block_k, config.block_n)
    gpu.launch(
        convolve_boxes,
        (min(blocks_m * blocks_n, config.programs * gpu.architecture().multiprocessors),),
        _of_pixels(source, *loaded),
        _of_weight(weight, p, *of_weight),
        bias,
        _of_pixels(saved, *loaded),
        _of_pixels(out, *stored),
        _of_pixels(before, *stored),
        *blocks[1:], blocks_m, blocks_n,
        **{f"{name.upper()}_{axis}": getattr(w, name) for axis, w in walks.items() for name in ("taps", "reach", "offset")},
        SOURCE_C=source_c,
        OUT_C=out_c,
        GATHER=gather,
        FLAT=config.flat,
        PRECISION=gemm.precision(spec),
        BIAS=bias is not None,
        ACTIVATION=spec.activation,
        SLOPE=saved is not None,
        SAVE=before is not None,
        **dict(zip(AXES, box, strict=True)),
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )  # fmt: skip


def _correlate(
    config: Config,
    spec: ConvSpec,
    p: Problem,
    image: Tensor,
    result: Tensor,
    saved: Tensor | None,
    grad_weight: Tensor,
    grad_bias: Tensor | None,
) -> None:
    box = _box(config.block_k, p.n, p.result)
    blocks = [-(-size // edge) for size, edge in zip((p.n, *p.result), box, strict=True)]
    blocks_m, blocks_n = -(-p.k // config.block_m), -(-p.c // config.block_n)
    tiles = blocks_m * blocks_n * prod(p.taps)
    splits, each = gemm.split(prod(blocks), tiles)
    sums, bias_sums = (gemm.partial_sums(splits, out) for out in (grad_weight, grad_bias))
    on_image, on_result = (p, p.image, p.c, box, config.block_n), (p, p.result, p.k, box, config.block_m)
    gpu.launch(
        correlate_boxes,
        (tiles * splits,),
        _of_pixels(image, *on_image),
        _of_pixels(result, *on_result),
        _of_pixels(saved, *(on_image if p.transposed else on_result)),
        sums, bias_sums, *p.result, *blocks[1:], blocks_m, blocks_n, prod(blocks), each,
        **{f"{name.upper()}_{axis}": getattr(p, name)[i] for i, axis in enumerate("DHW") for name in OF_TAPS},
        C=p.c,
        K=p.k,
        RAGGED=any(size % edge for size, edge in zip(p.result, box[1:], strict=True)),
        PRECISION=gemm.precision(spec),
        BIAS=grad_bias is not None,
        ACTIVATION=spec.activation,
        SLOPE_ON_IMAGE=saved is not None and p.transposed,
        **dict(zip(AXES, box, strict=True)),
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )  # fmt: skip
    gemm.add_partial(sums, grad_weight)
    gemm.add_partial(bias_sums, grad_bias)


def _box(pixels: int, n: int, sizes: Triple) -> Box:
    """Images x D x H x W, powers of two, `pixels` in all: those of which the fewest fill n images of `sizes`, and among
    them the one of the fewest images, whose taps share most pixels, and the longest lines."""
    powers = [1 << i for i in range(pixels.bit_length())]
    boxes = [(pixels // prod(edges), *edges) for edges in product(powers, repeat=3) if prod(edges) <= pixels]

    def cost(box: Box) -> tuple[int, int, int]:
        return prod(-(-size // edge) for size, edge in zip((n, *sizes), box, strict=True)), box[0], -box[3]

    return min(boxes, key=cost)


def _of_pixels(
    tensor: Tensor | None, p: Problem, sizes: Triple, channels: int, box: Box, block: int
) -> TensorDescriptor | None:
    if tensor is None:
        return None
    shape = [p.n, *sizes, channels]
    strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
    return TensorDescriptor(aligned(tensor, ALIGNMENT), shape, strides, [*box, block])


def _of_weight(weight: Tensor, p: Problem, block_k: int, block_c: int) -> TensorDescriptor:
    """(taps, K, C): a box has one tap in front, which a product of matrices does not see."""
    taps = prod(p.taps)
    strides = [p.c, taps * p.c, 1]
    return TensorDescriptor(aligned(weight, ALIGNMENT), [taps, p.k, p.c], strides, [1, block_k, block_c])
