"""The process that compiles: one JSON request a line on stdin, one JSON reply a line on stdout, until stdin ends.

    python -m accelops.bench.tpu_aot.child [FOLDER]

A request names a function `launches(spec, mesh, **options) -> Sequence[Launch]`, the Spec that it is given and the topology.
A reply has what `executable.py` makes of each Launch, or an error. FOLDER is where libtpu writes its static LLO profile.
The compiler may abort the process or not come back; that is its parent's to see (process.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from . import hlo, profile
from .launch import Launch

AXIS = "devices"


def main(folder: Path | None) -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libtpu prints on stdout too
    known: dict[str, dict[str, Any]] = {}
    for line in sys.stdin:
        try:
            reply = {"launches": answer(json.loads(line), folder, known)}
        except Exception as error:  # whatever a compiler raises is its verdict
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")


def answer(request: dict[str, Any], folder: Path | None, known: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One executable, as JSON, for each Launch that the request's function returns."""
    mesh = _mesh(request["topology"], request["devices"])
    spec_type = _named(request["spec_type"])
    launches = _named(request["builder"])(spec_type.from_json(request["spec"]), mesh, **request["options"])
    try:
        return [compiled(launch, mesh, request["topology"], folder, known) for launch in launches]
    finally:
        jax.clear_caches()


def compiled(
    launch: Launch, mesh: Mesh, topology: str, folder: Path | None, known: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The executable, as JSON. A program that was compiled before is not compiled again."""
    arguments = jax.tree.map(lambda leaf: _placed(leaf, mesh), launch.arguments)
    start = perf_counter()
    lowered = jax.jit(launch.function, donate_argnums=launch.donate).lower(*arguments)
    lowering = perf_counter() - start
    text = lowered.as_text()
    program = hashlib.sha256(f"{topology} {launch.options} {text}".encode()).hexdigest()
    if program not in known:
        start = perf_counter()
        executable = lowered.compile(compiler_options=dict(launch.options))
        seconds = perf_counter() - start
        known[program] = {"program": program, "compile_s": lowering + seconds} | _read(executable, folder)
        known[program]["bytes"] = _size(arguments) + _size(jax.eval_shape(launch.function, *arguments))
        donated = [argument for i, argument in enumerate(arguments) if i in launch.donate]
        known[program]["donated"] = len(jax.tree.leaves(donated))
    return known[program]


def _read(executable: Any, folder: Path | None) -> dict[str, Any]:
    text, memory = executable.as_text(), executable.memory_analysis()
    estimated = profile.take(folder) if folder else {}
    return {
        "instructions": [dataclasses.asdict(instruction) for instruction in hlo.entry(text)],
        "profile": {name: dataclasses.asdict(found) for name, found in estimated.items()},
        "aliased": hlo.aliased(text),
        "aliased_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }


@cache
def _mesh(topology: str, devices: int) -> Mesh:
    """The first `devices` of a topology."""
    found = topologies.get_topology_desc(topology, platform="tpu").devices
    if len(found) < devices:
        raise ValueError(f"the topology {topology} has {len(found)} devices, {devices} are asked for")
    return Mesh(np.array(found[:devices]), (AXIS,))


def _placed(leaf: jax.ShapeDtypeStruct, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """On all devices of the mesh, where the builder has not said otherwise."""
    if leaf.sharding is not None:
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, PartitionSpec()))


def _size(tree: Any) -> int:
    """Bytes, without the padding of any layout."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _named(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
