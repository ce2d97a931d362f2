"""Bucketing in one pass over memory, vectorised and threaded (cpu.cpp)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import native
from .spec import BucketSpec

MEBI = 2**20
RESULTS = "benchmarks/results/bucket_sizes.json"


@dataclass(frozen=True)
class Config:
    """`stream`: write past the caches, which spares reading each line before it is written. Pays where the result is too
    large to be found in the cache by who reads it next."""

    stream: bool


def unsupported(spec: BucketSpec) -> list[str]:
    return native.unsupported(spec)


def configs(spec: BucketSpec) -> list[Config]:
    likely = _too_large_for_caches(spec)
    return [Config(likely), Config(not likely)]


def _too_large_for_caches(spec: BucketSpec) -> bool:
    """Measured together with a reader of the result: from 16 MiB moved, packing and unpacking take 0.75x the time when
    streamed, below 8 MiB up to 1.3x; a reduction mostly reads, so it gains later."""
    return spec.bytes >= (64 if spec.direction == "reduce" else 16) * MEBI


def heuristic(spec: BucketSpec) -> tuple[Config | None, str]:
    if spec.direction == "unpack" and spec.wire_dtype != spec.dtype and 32 * MEBI <= spec.bytes < 128 * MEBI:
        return None, f"torch widens a flat buffer of this size as fast ({RESULTS})"
    return configs(spec)[
        0
    ], f"torch needs 1.2x to 2.9x the time, for reductions and error feedback 2x to 40x ({RESULTS})"


def run(config: Config, spec: BucketSpec, *operands: Any) -> None:
    """See native.run."""
    native.run("cpu", config.stream, spec, *operands)
