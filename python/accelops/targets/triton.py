"""GPUs, through Triton: is one here, how a kernel is launched, and what a launch that fails becomes.

Where TRITON_INTERPRET=1 is set before triton is imported, its interpreter runs the kernels on CPU tensors instead: right
results, without any speed. bench/triton_aot.py launches nothing at all, and compiles what would have been launched.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from . import KernelFailed

OLDEST = (3, 6)

Launcher = Callable[..., Any]


@dataclass(frozen=True)
class Architecture:
    """What kernels are fitted to: `shared_memory` is the most bytes that a program may have, `warp` the threads of a warp
    (AMD: wavefront), `multiprocessors` how many programs run side by side at least."""

    name: str
    shared_memory: int
    warp: int
    multiprocessors: int

    @property
    def descriptors(self) -> bool:
        """Whether its own hardware moves a box of a tensor by a descriptor: NVIDIA's tensor memory accelerator."""
        return self.name.startswith("sm_") and int(self.name.removeprefix("sm_")) >= 90


# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; AMD's CDNA 3 white paper.
ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture("sm_80", 166912, 32, 108),
        Architecture("sm_90", 232448, 32, 132),
        Architecture("sm_100", 232448, 32, 148),
        Architecture("gfx942", 65536, 64, 304),
    )
}

# Faults of the device itself, in the words of cuda.h, after which no kernel of this process runs.
_FATAL = ("illegal memory access", "misaligned address", "unspecified launch failure", "device-side assert")


def unavailable() -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed: it comes with torch's builds for GPUs; otherwise pip install triton"
    if not emulated() and not torch.cuda.is_available():
        return "torch.cuda.is_available() is False; with TRITON_INTERPRET=1 in the environment the kernels run on the CPU, slowly"
    import triton

    if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST:
        return f"Triton {triton.__version__} is too old: pip install 'triton>={'.'.join(map(str, OLDEST))}'"
    return None


@cache
def emulated() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "y", "yes")


def devices() -> tuple[str, ...]:
    """The torch device types whose tensors kernels take; on "meta" there is nothing but a launch to look at."""
    return ("cpu", "meta") if emulated() else ("cuda", "meta")


def architecture() -> Architecture:
    """That of torch's current device; sm_90 where there is none."""
    return _stages[-1].architecture or _present()


def _present() -> Architecture:
    if not torch.cuda.is_available():
        return ARCHITECTURES["sm_90"]
    return _of_device(torch.cuda.current_device())


@cache
def _of_device(index: int) -> Architecture:
    device = torch.cuda.get_device_properties(index)
    name = device.gcnArchName.split(":")[0] if torch.version.hip else f"sm_{device.major}{device.minor}"
    return Architecture(name, device.shared_memory_per_block_optin, device.warp_size, device.multi_processor_count)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run a `triton.jit` kernel on the device of its first tensor; `constants` are its constexprs, num_warps and
    num_stages. Raises KernelFailed where it does not compile or cannot be launched, torch.OutOfMemoryError where
    the device has no memory left for it, RuntimeError as CUDA does where the device itself has failed."""
    compiled = _stages[-1].launcher(kernel, grid, *arguments, **constants)
    seen = getattr(_seen, "launches", None)
    if seen is not None:
        seen.append(Launch(kernel, grid, arguments, constants, compiled))


def tensor_of(argument: Any) -> torch.Tensor | None:
    """The tensor that an argument is, or describes (triton.tools.tensor_descriptor), if any."""
    tensor = getattr(argument, "base", argument)
    return tensor if isinstance(tensor, torch.Tensor) else None


@dataclass(frozen=True)
class Launch:
    """One call of `launch`; `compiled` is Triton's compiled kernel, None in the interpreter."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    compiled: Any

    @property
    def bound(self) -> tuple[Any, ...]:
        """All arguments in the kernel's order, as a compiled kernel takes them."""
        return (*self.arguments, *(self.constants[name] for name in self.kernel.arg_names[len(self.arguments) :]))


_seen = threading.local()


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Collects the launches of this thread that do not fail."""
    outer, _seen.launches = getattr(_seen, "launches", None), []
    try:
        yield _seen.launches
    finally:
        _seen.launches = outer


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> Any:
    try:
        with torch.cuda.device_of(next(t for t in map(tensor_of, arguments) if t is not None)):
            return kernel[grid](*arguments, enable_fp_fusion=True, **constants)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton's own have no common base, and its passes raise plain RuntimeErrors
        if any(fault in str(error) for fault in _FATAL):
            raise
        if "out of memory" in str(error):
            raise torch.OutOfMemoryError(str(error)) from error
        lines = str(error).strip().splitlines() or [""]
        raise KernelFailed(f"{kernel.__name__}: {type(error).__name__}: {lines[-1]}") from error


@dataclass(frozen=True)
class _Stage:
    launcher: Launcher = _launch
    architecture: Architecture | None = None


_stages = [_Stage()]


def redirected() -> bool:
    """Whether launches go elsewhere than to a GPU."""
    return len(_stages) > 1 or emulated()


def current_device() -> int:
    """The number of the device on which a launch without more ado runs."""
    return torch.cuda.current_device()


@contextmanager
def launching(launcher: Launcher, architecture: Architecture) -> Iterator[None]:
    """Within this context kernels are fitted to `architecture`, and a launch is a call of `launcher(kernel, grid,
    *arguments, **constants)`, which may return what it compiled."""
    _stages.append(_Stage(launcher, architecture))
    try:
        yield
    finally:
        _stages.pop()
