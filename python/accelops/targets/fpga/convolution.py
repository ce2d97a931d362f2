"""The convolutions on a board, in int8 and fp32: a launch's geometry, its tiles, and what it costs, by arithmetic: *modelled*.

Channels are counted in the kernel's units: C words of `inputs` channels, K blocks of `outputs` (hls/conv/tiles.hpp).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import product
from math import inf

from .boards import Board, board
from .model import PIPELINE, Estimate, ceil_div
from .registers import kernels

ENGINES = {"conv_int8": 8, "conv_fp32": 32}  # bits of an element

# Assumed: what a launch costs beside the kernel on a board's own processor, and how fast the host adds results up.
LAUNCH_SECONDS = 200e-6
HOST_BYTES_PER_SECOND = 150e6  # PYNQ.remote's flush and fetch


@dataclass(frozen=True)
class Geometry:
    """The scalar arguments of hls/conv/kernel_*.json by their names. Tiles of 0 are to be planned; C_total and K_total, all
    that an image has, are 0 where that is C and K; `rows` and `columns` of the output to make are 0 where that is as many
    as the padding, the same on both sides, gives: more see zeros beyond the image's end."""

    N: int
    H: int
    W: int
    C: int
    K: int
    R: int = 1
    S: int = 1
    stride_h: int = 1
    stride_w: int = 1
    padding_h: int = 0
    padding_w: int = 0
    dilation_h: int = 1
    dilation_w: int = 1
    tile_n: int = 0
    tile_p: int = 0
    tile_q: int = 0
    C_total: int = 0
    K_total: int = 0
    rows: int = 0
    columns: int = 0

    def arguments(self) -> dict[str, int]:
        """As the kernels take them."""
        made = {"P": self.P, "Q": self.Q, "C_total": self.C_total or self.C, "K_total": self.K_total or self.K}
        return {name: value for name, value in asdict(self).items() if name not in ("rows", "columns")} | made

    @property
    def P(self) -> int:
        return self.rows or (self.H + 2 * self.padding_h - self.dilation_h * (self.R - 1) - 1) // self.stride_h + 1

    @property
    def Q(self) -> int:
        return self.columns or (self.W + 2 * self.padding_w - self.dilation_w * (self.S - 1) - 1) // self.stride_w + 1

    @property
    def sets(self) -> int:
        """Of weights: one for each tap of each word of each block."""
        return self.K * self.C * self.R * self.S

    def patch_words(self) -> int:
        """The buffer that the inputs of a whole tile take. Of a strided dimension with one tap it holds only what is used."""
        rows = (self.tile_p - 1) * (self.stride_h if self.R > 1 else 1) + (self.R - 1) * self.dilation_h + 1
        columns = (self.tile_q - 1) * (self.stride_w if self.S > 1 else 1) + (self.S - 1) * self.dilation_w + 1
        return self.tile_n * self.C * rows * columns


@dataclass(frozen=True)
class _Side:
    """A dimension of the output cut into tiles: how many tiles there are of each size (two at most: the last may be
    smaller), and of all tiles' inputs together: how many lie between the first and the last that each uses (`span`), how
    many of these in the image (`inside`), and how many go into the patches (`kept`, `kept_inside`): all, but with one tap
    only those that outputs stand on."""

    sizes: tuple[tuple[int, int], ...]
    span: int
    inside: int
    kept: int
    kept_inside: int


@lru_cache(maxsize=4096)
def _side(size: int, extent: int, tile: int, taps: int, stride: int, padding: int, dilation: int) -> _Side:
    sizes = tuple(min(tile, size - at) for at in range(0, size, tile))
    skip = stride if taps == 1 else 1
    span = inside = kept = kept_inside = 0
    for i, here in enumerate(sizes):
        length = (here - 1) * stride + (taps - 1) * dilation + 1
        first = i * tile * stride - padding
        begin, end = max(first, 0), min(first + length, extent)
        span += length
        inside += max(0, end - begin)
        kept += ceil_div(length, skip)
        kept_inside += max(0, ceil_div(end - first, skip) - ceil_div(begin - first, skip))
    return _Side(tuple(Counter(sizes).items()), span, inside, kept, kept_inside)


def conv_int8(board: Board, g: Geometry, raw: bool = False) -> Estimate:
    """A launch with the tiles of `g`; `raw`: y is int32. Padded channels count as work."""
    scale_beats = board.sizes["conv_int8"]["outputs"] * 32 // board.ports.bits
    return _conv("conv_int8", board, g, 0 if raw else 3 * scale_beats, 32 if raw else 8)


def conv_fp32(board: Board, g: Geometry, bias: bool = False) -> Estimate:
    """A launch with the tiles of `g`. Padded channels count as work."""
    bias_beats = board.sizes["conv_fp32"]["outputs"] * 32 // board.ports.bits
    return _conv("conv_fp32", board, g, bias_beats if bias else 0, 32)


def _conv(engine: str, board: Board, g: Geometry, constant_beats: int, out_bits: int) -> Estimate:
    """`constant_beats`: what the engine reads for a block of outputs of a tile; `out_bits`: of an element of y."""
    array, latency = board.sizes[engine], board.burst.read_latency_cycles
    blocks = array["inputs"] // array["outputs"]
    block_beats, block_out_beats = (array["outputs"] * bits // board.ports.bits for bits in (ENGINES[engine], out_bits))
    weight_beats = array["outputs"] * blocks * block_beats
    images = _side(g.N, g.N, g.tile_n, 1, 1, 0, 1)
    rows = _side(g.P, g.H, g.tile_p, g.R, g.stride_h, g.padding_h, g.dilation_h)
    columns = _side(g.Q, g.W, g.tile_q, g.S, g.stride_w, g.padding_w, g.dilation_w)
    pixels = [
        (n * p * q, a * b * c) for (n, a), (p, b), (q, c) in product(images.sizes, rows.sizes, columns.sizes)
    ]  # of a tile, and how many such tiles there are
    tiles = sum(count for _, count in pixels)
    lanes = array.get("ports", 1)
    planes = g.N * g.C * blocks // lanes  # that a lane reads
    inside = planes * rows.kept_inside * columns.inside * block_beats
    zeros = planes * (
        rows.kept_inside * (columns.span - columns.inside) + (rows.kept - rows.kept_inside) * columns.kept
    )
    made = [ceil_div(g.K - lane, lanes) for lane in range(lanes)]  # blocks of outputs
    out_beats = g.N * g.P * g.Q * block_out_beats
    trips = {
        "schedule": (tiles,),
        "load_x": (zeros + inside,) * lanes,
        "load_w": (tiles * g.sets * weight_beats,),
        "load_constants": (tiles * g.K * constant_beats,),
        "fill": (planes * rows.kept * columns.kept,),
        "multiply": (sum(count * (weight_beats + g.sets * max(size, weight_beats)) for size, count in pixels),),
        "finish": tuple(k * (tiles * constant_beats + out_beats) for k in made),
        "store": tuple(k * out_beats for k in made),
    }
    bursts = planes * rows.kept_inside * sum(count for _, count in columns.sizes)
    reading = trips["load_x"][0] + bursts * latency
    first = ceil_div(reading, max(tiles, 1))  # nothing multiplies before the first patch is there
    moved = lanes * inside + trips["load_w"][0] + trips["load_constants"][0] + g.K * out_beats
    cycles = max(reading, *(count for stage in trips.values() for count in stage)) + first + PIPELINE
    kernel = kernels()[engine]
    counted = {stage: trips[stage] + (0,) * (kernel.engines - len(trips[stage])) for stage in kernel.stages}
    return Estimate(board, counted, cycles, moved * board.beat_bytes)


def planned(engine: str, board: Board, g: Geometry) -> Geometry:
    """`g` with the tiles that are modelled to be fastest. A 1x1 kernel without stride or padding sees an image as one
    row, which is read in one burst. Raises ValueError where not even one pixel's inputs fit."""
    if (g.R, g.S, g.stride_h, g.stride_w, g.padding_h, g.padding_w, g.P, g.Q) == (1, 1, 1, 1, 0, 0, g.H, g.W):
        g = replace(g, H=1, W=g.H * g.W, rows=0, columns=0)
    array = board.sizes[engine]
    choices = [tiled for tiled in _tilings(g, array["tile_pixels"]) if tiled.patch_words() <= array["input_words"]]
    if not choices:
        raise ValueError(
            f"conv: one output pixel needs {replace(g, tile_n=1, tile_p=1, tile_q=1).patch_words()} words of input on the "
            f"chip, {board.name} has {array['input_words']}: split the input channels"
        )
    return min(choices, key=lambda tiled: _conv(engine, board, tiled, 0, ENGINES[engine]).seconds)


def halvings(size: int) -> list[int]:
    """`size`, half of it, and so on to 1."""
    found = [size]
    while found[-1] > 1:
        found.append(ceil_div(found[-1], 2))
    return found


def words_at_once(name: str, g: Geometry, most: int) -> int:
    """How many of the C words of channels, at most `most`, a launch of conv_fp32 on the board `name` is to sum over."""
    choices = _in_parts(name, g)
    few = {words: seconds for words, seconds in choices.items() if words <= most}
    return min(few, key=few.__getitem__) if few else most


def seconds_in_parts(name: str, g: Geometry) -> float:
    """What all C words take, in as many launches as is fastest; infinite where they do not fit."""
    return min(_in_parts(name, g).values(), default=inf)


@lru_cache(maxsize=4096)
def _in_parts(name: str, g: Geometry) -> dict[int, float]:
    """By the words of channels that a launch sums over, the seconds of all launches and of the host, which adds up what they
    make. With fewer words more pixels have room on the chip, and weights are read less often."""
    described, found = board(name), {}
    for words in halvings(g.C):
        try:
            one = conv_fp32(described, planned("conv_fp32", described, replace(g, C=words)))
        except ValueError:  # they do not fit
            continue
        launches = ceil_div(g.C, words)
        added = (launches - 1) * 4 * g.N * g.K * g.P * g.Q * described.sizes["conv_fp32"]["outputs"]
        found[words] = launches * (one.seconds + LAUNCH_SECONDS) + added / HOST_BYTES_PER_SECOND
    return found


def _tilings(g: Geometry, most: int) -> Iterator[Geometry]:
    """Even cuts of the outputs into at most `most` pixels a tile."""
    for tile_q in _cuts(g.Q, most):
        for tile_p in _cuts(g.P, most // tile_q):
            # Several images in a tile save reading weights; part of an image with others would save nothing.
            whole = (tile_p, tile_q) == (g.P, g.Q)
            for tile_n in _cuts(g.N, most // (tile_p * tile_q)) if whole else (1,):
                yield replace(g, tile_n=tile_n, tile_p=tile_p, tile_q=tile_q)


def _cuts(size: int, most: int) -> list[int]:
    return sorted({ceil_div(size, parts) for parts in range(1, size + 1)} & set(range(1, most + 1)))
