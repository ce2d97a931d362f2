"""Estimate: a time for an op that is compiled and not run, and which of the compiler's estimators it comes from.

    est = sum over its launches of max(cycles / clock, bytes / bandwidth), and at least flops / peak

HLO cycles cover what XLA generates and no Pallas kernel; the static LLO profile covers kernels, and of XLA's own code what
its profiler can model. Both count a DMA without what else uses the memory, hence the roofline. Two estimates of different
estimators do not compare: a ratio across them has been wrong by 2.9x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .chips import Chip
from .executable import Executable

HLO, LLO, MIXED = "HLO cycles", "static LLO profile", "static LLO profile and HLO cycles"
ROOFLINE = "roofline"


@dataclass(frozen=True)
class Estimate:
    """`estimator` counted the cycles; `source` is the term that decided, the estimator or the roofline; `unmodelled` names
    the instructions of which the estimator knows nothing."""

    seconds: float
    source: str
    estimator: str
    unmodelled: tuple[str, ...] = ()


def estimate(launches: Sequence[Executable], chip: Chip, flops: float, llo: bool = False) -> Estimate:
    """Of an op of so many `flops`. With `llo` the static LLO profile counts wherever it has an instruction, otherwise HLO
    cycles do."""
    counted = [_counted(launch, llo) for launch in launches]
    by_cycles = [cycles / chip.clock for cycles, _, _ in counted]
    bounds = [launch.bytes / chip.bandwidth for launch in launches]
    least = max(sum(bounds), flops / chip.peak)
    seconds = max(sum(map(max, by_cycles, bounds)), least)
    used = {estimator for _, estimators, _ in counted for estimator in estimators}
    estimator = MIXED if len(used) > 1 else used.pop() if used else ROOFLINE
    unmodelled = tuple(name for _, _, names in counted for name in names)
    return Estimate(seconds, estimator if sum(by_cycles) >= least else ROOFLINE, estimator, unmodelled)


def comparable(one: Estimate, other: Estimate) -> bool:
    """Whether both come from one estimator, and from one alone."""
    return one.estimator == other.estimator and one.estimator != MIXED and not (one.unmodelled or other.unmodelled)


def _counted(launch: Executable, llo: bool) -> tuple[int, set[str], list[str]]:
    """Cycles, the estimators that they come from, and what none of them knows."""
    profile = launch.profile if llo else {}
    cycles = sum(found.cycles * found.count for found in profile.values())
    estimators = {LLO} if profile else set()
    twins = sum(found.count - 1 for found in profile.values())  # alike with one that has an entry, without their own
    unmodelled = []
    for instruction in launch.instructions:
        if instruction.name in profile:
            continue
        timed = instruction.cycles is not None
        if (timed or instruction.kernel) and twins:
            twins -= 1
        elif timed:
            cycles += instruction.cycles
            estimators.add(HLO)
        elif instruction.kernel or instruction.unmodelled:
            unmodelled.append(instruction.name)
    return cycles, estimators, unmodelled
