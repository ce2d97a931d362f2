"""The TPU generations that libtpu compiles for: how jax names their topologies, and the ceilings of one device of each.

A device is what XLA compiles for: a core of v4 and v7x, a chip (its cores together) of the others. Peaks and bandwidths
are those of Google's public pages "Cloud TPU v4", "v5e", "v5p", "v6e" and "TPU7x"; the clock is the peak over the matrix
units' flops per cycle, which published v5e matrix products confirm within 15 %.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """`topology` is the smallest that libtpu knows; `generation` is how names of others begin, as in "v5e:2x4".
    `clock` in cycles/s, `peak` in bf16 flop/s, `bandwidth` of the memory in bytes/s."""

    name: str
    topology: str
    clock: float
    peak: float
    bandwidth: float

    @property
    def generation(self) -> str:
        return self.topology.partition(":")[0]

    def floor(self, flops: float, size: float) -> float:
        """Seconds that so many flops and bytes need at least."""
        return max(flops / self.peak, size / self.bandwidth)


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "v4:2x2x1", 1.05e9, 275e12 / 2, 1228e9 / 2),
        Chip("v5e", "v5e:2x2", 1.5e9, 197e12, 819e9),
        Chip("v5p", "v5p:2x2x1", 1.75e9, 459e12, 2765e9),
        Chip("v6e", "v6e:2x2", 1.75e9, 918e12, 1640e9),
        Chip("v7x", "tpu7x:2x2x1", 2.2e9, 2307e12 / 2, 7380e9 / 2),
    )
}


def chip(name: str) -> Chip:
    """Raises ValueError for a name that is no chip's."""
    if name not in CHIPS:
        raise ValueError(f"target={name!r} is no TPU generation; choose among {', '.join(CHIPS)}")
    return CHIPS[name]


def chips(names: str) -> tuple[Chip, ...]:
    """Of a list with commas between, without repetitions."""
    return tuple(chip(name) for name in dict.fromkeys(part.strip() for part in names.split(",")))
