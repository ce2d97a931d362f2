"""Compile the Triton kernels for GPUs that are not there: every Config of the Specs given, with Triton's own compilers.

What a run would launch is recorded on tensors without memory, and specialised and compiled as Triton would at the launch.
Evidence of the kind "compiled": the kernel exists for the architecture, fits its registers and its shared memory.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import triton
from triton.backends.compiler import GPUTarget

from accelops.kernels.spec import Spec
from accelops.targets.triton import ARCHITECTURES, Launch, launching, recorded

_COMPILER_TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture: `registers` of a thread, `spilled` bytes of a thread that lie in memory instead,
    `shared` bytes of a program. `error` is what the compiler says where it fails, or the launch would."""

    op: str
    kernel: str
    config: str
    spec: str
    architecture: str
    registers: int = 0
    spilled: int = 0
    shared: int = 0
    error: str = ""


class _Absent:
    """Stands in for Triton's driver: a device of an architecture, on which nothing can be launched."""

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture

    def get_current_device(self) -> str:  # the key under which a kernel keeps what it has compiled
        return self.architecture

    def get_current_stream(self, device: str) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return _COMPILER_TARGETS[self.architecture]


def compile_for(architecture: str, specs: Iterable[Spec]) -> Iterator[Compiled]:
    """Every kernel that any Config of the Specs (device "meta") launches on `architecture`, a key of ARCHITECTURES."""
    before = triton.runtime.driver._active
    triton.runtime.driver.set_active(_Absent(architecture))
    try:
        for spec in specs:
            for config, launch in _launches(architecture, spec):
                yield _compiled(architecture, spec, config, launch)
    finally:
        triton.runtime.driver._active = before


def compile_on_all_cores(architecture: str, specs: Iterable[Spec]) -> Iterator[Compiled]:
    """The same for Specs of any device, in as many processes as the machine has cores. What is compiled stays in Triton's
    cache, where a launch finds it. A script that calls this must be importable without running."""
    tasks = [(architecture, replace(spec, device="meta")) for spec in specs]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for compiled in pool.map(_compile_one, tasks):
            yield from compiled


def _compile_one(task: tuple[str, Spec]) -> list[Compiled]:
    architecture, spec = task
    return list(compile_for(architecture, [spec]))


def summary(compiled: Sequence[Compiled]) -> dict[str, Any]:
    """What a report says of so many kernels: all that failed or spill, and the extremes of the others."""
    made = [piece for piece in compiled if not piece.error]
    return {
        "kernels": len(compiled),
        "by_architecture": dict(Counter(piece.architecture for piece in compiled)),
        "by_kernel": dict(Counter(f"{piece.op} {piece.kernel}" for piece in compiled)),
        "most_registers": max((piece.registers for piece in made), default=0),
        "most_shared_memory": max((piece.shared for piece in made), default=0),
        "failed": [asdict(piece) for piece in compiled if piece.error],
        "spilling": [asdict(piece) for piece in made if piece.spilled],
    }


def _launches(architecture: str, spec: Spec) -> Iterator[tuple[Any, Launch]]:
    module = import_module(f"accelops.kernels.{spec.op}.triton")
    operands = import_module(f"accelops.kernels.{spec.op}.operands").operands(spec)
    with launching(lambda *arguments, **constants: None, ARCHITECTURES[architecture]):
        for config in module.configs(spec):
            with recorded() as launches:
                module.run(config, spec, *operands)
            yield from ((config, launch) for launch in launches)


def _compiled(architecture: str, spec: Spec, config: Any, launch: Launch) -> Compiled:
    what = (spec.op, launch.kernel.__name__, str(config), spec.to_json(), architecture)
    try:
        made = launch.kernel.warmup(*launch.arguments, grid=launch.grid, enable_fp_fusion=True, **launch.constants)
    except Exception as error:  # whatever a compiler raises is its verdict
        return Compiled(*what, error=f"{type(error).__name__}: {error}")
    registers, spilled = _nvidia(made.asm["cubin"]) if "cubin" in made.asm else _amd(made.asm["amdgcn"])
    shared, limit = made.metadata.shared, ARCHITECTURES[architecture].shared_memory
    # Triton finds it out at the launch only.
    error = f"OutOfResources: {shared} bytes of shared memory, of which there are {limit}" if shared > limit else ""
    return Compiled(*what, registers, spilled, shared, error)


def _nvidia(cubin: bytes) -> tuple[int, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(
            [_cuobjdump(), "-res-usage", file.name], check=True, capture_output=True, text=True, timeout=60
        ).stdout
    use = {name: int(n) for name, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return use["REG"], use["STACK"] + use["LOCAL"]


@cache
def _cuobjdump() -> str:
    return os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "cuobjdump")


def _amd(assembly: str) -> tuple[int, int]:
    count = {name: int(n) for name, n in re.findall(r"\.(vgpr_count|vgpr_spill_count):\s+(\d+)", assembly)}
    return count["vgpr_count"], 4 * count["vgpr_spill_count"]
