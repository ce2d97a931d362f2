"""Fair timing on a noisy machine: variants take turns in one process, and are compared round by round.

Drift (clock, temperature, neighbours) meets all variants of a round alike, so the median of the rounds' ratios is far
steadier than the ratio of two medians; the quartiles of those ratios are the spread that is reported.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter

SAMPLE_SECONDS = 2e-4  # a sample lasts at least this long, so that the clock's 0.1 us does not count
ROUNDS = 9
FEWEST_ROUNDS = 3
MOST_ROUNDS = 400


@dataclass(frozen=True)
class Variant:
    """What is timed, and a context that is entered around it without being timed."""

    run: Callable[[], object]
    context: Callable[[], AbstractContextManager[object]] = nullcontext


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


def interleaved(variants: Mapping[str, Variant], seconds: float) -> dict[str, list[float]]:
    """Seconds of one call of each variant, one value a round.

    Takes about `seconds`, more only for ROUNDS rounds, and at most four times as much unless FEWEST_ROUNDS need it. Two
    warm-up calls of each come before. The variants' order rotates, so that none always follows the same one.
    """
    calls = {name: _calls_in_a_sample(variant) for name, variant in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    with _no_garbage_collection():
        start = perf_counter()
        for done in range(MOST_ROUNDS):
            elapsed = perf_counter() - start
            if (done >= ROUNDS and elapsed > seconds) or (done >= FEWEST_ROUNDS and elapsed > 4 * seconds):
                break
            for name in order:
                times[name].append(_sample(variants[name], calls[name]))
            order.append(order.pop(0))
    return times


def _calls_in_a_sample(variant: Variant) -> int:
    with variant.context():
        variant.run()
    return max(1, round(SAMPLE_SECONDS / _sample(variant, 1)))


def _sample(variant: Variant, calls: int) -> float:
    run = variant.run
    with variant.context():
        start = perf_counter()
        for _ in range(calls):
            run()
        return (perf_counter() - start) / calls


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
