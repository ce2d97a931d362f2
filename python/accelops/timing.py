"""Fair timing on a noisy machine: variants take turns in one process, and are compared round by round.

Drift (clock, temperature, neighbours) meets all variants of a round alike, so the median of the rounds' ratios is far
steadier than the ratio of two medians; the quartiles of those ratios are the spread that is reported.

On a GPU time is the device's own, between two events. Calls that are replayed from a graph show what the kernels take, calls
that are not show what a script waits for that launches them one by one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch

SAMPLE_SECONDS = 2e-4  # a sample lasts at least this long, so that the clock's 0.1 us does not count
ROUNDS = 9
FEWEST_ROUNDS = 3
MOST_ROUNDS = 400
MOST_COPIES = 32


@dataclass(frozen=True)
class Variant:
    """What is timed, and a context that is entered around it without being timed; one `run` stands for `calls` calls."""

    run: Callable[[], object]
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    calls: int = 1


@dataclass(frozen=True)
class Ratio:
    """Median over the rounds, with the quartiles."""

    median: float
    low: float
    high: float


def ratio(base: Sequence[float], other: Sequence[float]) -> Ratio:
    """How many times faster `other` is than `base`; both from one call of `interleaved`."""
    values = [b / o for b, o in zip(base, other, strict=True)]
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Ratio(median(values), low, high)


def copies(nbytes: int) -> int:
    """How many sets of operands of `nbytes` a graph should go through, so that the GPU's cache holds none of them when its
    turn comes again: twice the cache's size, but at least 4 and at most MOST_COPIES."""
    cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return min(MOST_COPIES, max(4, -(-2 * cache // max(1, nbytes))))


def captured(
    runs: Sequence[Callable[[], object]], context: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Variant:
    """A CUDA graph of `runs`, one after the other, each captured within `context` after a warm-up that compiles what it
    needs. Each keeps its results in memory of its own. Raises what CUDA raises for what cannot be captured."""
    graph, warm_up = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with context():
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up):
            for run in runs:
                run()
        torch.cuda.current_stream().wait_stream(warm_up)
        with torch.cuda.graph(graph):
            kept = [run() for run in runs]
    del kept
    return Variant(graph.replay, calls=len(runs))


def interleaved(variants: Mapping[Any, Variant], seconds: float, device: str = "cpu") -> dict[Any, list[float]]:
    """Seconds of one call of each variant on "cpu" or "cuda", one value a round.

    Takes about `seconds`, more only for ROUNDS rounds, and at most four times as much unless FEWEST_ROUNDS need it. Two
    warm-up calls of each come before. The variants' order rotates, so that none always follows the same one.
    """
    sample = _sample if device == "cpu" else _sample_on_gpu
    runs = {name: _runs_in_a_sample(variant, sample) for name, variant in variants.items()}
    times: dict[Any, list[float]] = {name: [] for name in variants}
    order = list(variants)
    with _no_garbage_collection():
        start = perf_counter()
        for done in range(MOST_ROUNDS):
            elapsed = perf_counter() - start
            if (done >= ROUNDS and elapsed > seconds) or (done >= FEWEST_ROUNDS and elapsed > 4 * seconds):
                break
            for name in order:
                times[name].append(sample(variants[name], runs[name]))
            order.append(order.pop(0))
    return times


Sampler = Callable[[Variant, int], float]


def _runs_in_a_sample(variant: Variant, sample: Sampler) -> int:
    with variant.context():
        variant.run()
    return max(1, round(SAMPLE_SECONDS / (sample(variant, 1) * variant.calls)))


def _sample(variant: Variant, runs: int) -> float:
    run = variant.run
    with variant.context():
        start = perf_counter()
        for _ in range(runs):
            run()
        return (perf_counter() - start) / (runs * variant.calls)


def _sample_on_gpu(variant: Variant, runs: int) -> float:
    run = variant.run
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with variant.context():
        start.record()
        for _ in range(runs):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / (runs * variant.calls)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
