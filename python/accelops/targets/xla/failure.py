"""What a compiler raises becomes KernelFailed: dispatch then sets the Config aside, and torch's own kernel runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelops.targets import KernelFailed

from . import installed

PACKAGES = ("jax", "jaxlib", "libtpu", "torch_xla", "torch_tpu")


@contextmanager
def as_kernel_failed(function: Any) -> Iterator[None]:
    """Around the lowering and compiling of `function`, in which nothing has been written yet."""
    try:
        yield
    except Exception as error:  # jax, MLIR and XLA have no common base for theirs
        lines = str(error).strip().splitlines() or [""]
        versions = ", ".join(f"{package} {found}" for package in PACKAGES if (found := installed(package)))
        name = getattr(function, "__qualname__", "a program")
        raise KernelFailed(f"{name} ({versions}): {type(error).__name__}: {lines[0]}") from error
