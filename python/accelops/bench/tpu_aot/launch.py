"""Launch: one program for a TPU, as a child compiles it. This file needs no jax: it only names its objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Launch:
    """`function` of `arguments` (trees of jax.ShapeDtypeStruct); the arguments at the positions `donate` lend their memory
    to the results. `options` are the compiler's. What a device is asked for at once: an op in eager mode is several."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    donate: tuple[int, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
