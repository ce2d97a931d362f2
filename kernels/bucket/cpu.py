"""Bucketing in one pass over memory, vectorised and threaded (cpu.cpp)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import native
from .spec import BucketSpec


@dataclass(frozen=True)
class Config:
    """`stream`: write past the caches, which spares reading each line before it is written. Pays where the result is too
    large to be found in the cache by who reads it next."""

    stream: bool


def unsupported(spec: BucketSpec) -> list[str]:
    return native.unsupported(spec)


def configs(spec: BucketSpec) -> list[Config]:
    return [Config(stream=True), Config(stream=False)]


def heuristic(spec: BucketSpec) -> tuple[Config | None, str]:
    """Stream what the caches cannot hold for the next reader. Measured with that reader: from 16 MiB moved, packing and
    unpacking take 0.75x the time when streamed, below 8 MiB up to 1.3x; a reduction mostly reads, so it gains later."""
    stream = spec.bytes >= (64 if spec.direction == "reduce" else 16) * 2**20
    return Config(stream), "faster than torch at every size in benchmarks/results/bucket_sizes.json"


def run(config: Config, spec: BucketSpec, *operands: Any) -> None:
    """See native.run."""
    native.run("cpu", config.stream, spec, *operands)
