"""Is a kernel right? Its error against fp64, as a share of what torch's own kernel of the same dtype makes it allowed.

Allowed is twice torch's error; or, where torch happens to be closer than it can promise, four units in the last place of the
result's scale, or what rounding makes of a sum of so many terms. It needs torch alone, so that a bare GPU machine can judge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from math import inf, prod, sqrt
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from accelops.kernels.conv import aten
from accelops.kernels.conv.spec import ConvSpec
from accelops.kernels.spec import Spec

FACTOR = 2
ULPS = 4

Operands = tuple[Tensor | None, ...]


def results(
    implementation: ModuleType, config: Any, spec: ConvSpec, given: Operands, save: bool = False
) -> list[Tensor]:
    """What a run gives, without what it leaves out."""
    got = implementation.run(config, spec, *given, **({"save": True} if save else {}))
    return [r for r in (got if isinstance(got, tuple) else (got,)) if r is not None]


def by_torch(spec: ConvSpec, given: Operands, save: bool = False) -> list[Tensor]:
    """torch's own kernel in the spec's dtype."""
    return results(aten, aten.Config(), spec, tuple(None if t is None else t.clone() for t in given), save)


def in_double(spec: ConvSpec, given: Operands, save: bool = False) -> list[Tensor]:
    """torch's own kernel in fp64."""
    doubles = tuple(None if t is None else t.double() for t in given)
    return by_torch(dataclasses.replace(spec, dtype="float64"), doubles, save)


def rounding_of_terms(spec: ConvSpec, given: Operands) -> float:
    """What n roundings (in the precision of the sums) of independent sign make of n terms: sqrt(n) u times the greatest sum of
    the terms' absolute values (Higham & Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 2.4
    with lambda = 1). torch's own sums are in blocks, and by chance several times better where results are few."""
    absolute = [None if t is None else t.abs() for t in given]
    if spec.direction != "fprop":
        absolute[2] = None
    sums = in_double(dataclasses.replace(spec, activation="none"), tuple(absolute))
    precision = torch.float64 if spec.dtype == "float64" else torch.float32
    greatest = max((r.max().item() for r in sums if r.numel()), default=0)
    return torch.finfo(precision).eps / 2 * sqrt(_terms(spec)) * greatest


def _terms(spec: ConvSpec) -> int:
    """How many products a result is the sum of, at most."""
    if spec.direction == "wgrad":
        return spec.input[0] * prod(spec.input[2:] if spec.transposed else spec.output[2:])
    channels = spec.input[1] if spec.direction == "fprop" else spec.out_channels
    return channels // spec.groups * prod(spec.kernel)


def left_in_place(implementation: ModuleType, config: Any, spec: Spec, operands: tuple[Any, ...]) -> list[Tensor]:
    """What a run of an op that works in place, adam or bucket, makes of copies of its operands' tensors."""
    copies = _each_tensor(operands, Tensor.clone)
    implementation.run(config, spec, *copies)
    found: list[Tensor] = []
    _each_tensor(copies, lambda tensor: found.append(tensor) or tensor)
    return found


def left_in_place_in_double(implementation: ModuleType, spec: Spec, operands: tuple[Any, ...]) -> list[Tensor]:
    """The same by torch's own kernels, the spec's dtypes and all tensors in fp64."""
    dtypes = {f.name: "float64" for f in dataclasses.fields(spec) if f.name.endswith("dtype")}
    wide = dataclasses.replace(spec, **dtypes)
    return left_in_place(implementation, implementation.configs(wide)[0], wide, _each_tensor(operands, Tensor.double))


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_each_tensor(part, change) for part in value)
    if dataclasses.is_dataclass(value):
        fields = {f.name: _each_tensor(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def share_of_allowed(
    actual: Sequence[Tensor], of_torch: Sequence[Tensor], exact: Sequence[Tensor], rounding: float
) -> float:
    """The largest error of `actual` over the allowed one; above 1, or infinite where a value is not finite, it is wrong."""
    return max((_share(*each, rounding) for each in zip(actual, of_torch, exact, strict=True)), default=0.0)


def _share(actual: Tensor, of_torch: Tensor, exact: Tensor, rounding: float) -> float:
    if not exact.numel():
        return 0.0
    error, torchs = ((t.double() - exact).abs().max().item() for t in (actual, of_torch))
    allowed = max(FACTOR * torchs, ULPS * torch.finfo(actual.dtype).eps * exact.abs().max().item(), rounding)
    if error <= allowed:
        return error / allowed if allowed else 0.0
    return error / allowed if allowed and error == error else inf


class Judge:
    """Holds any Config of a Spec against fp64 and torch, on one draw of random operands."""

    def __init__(self, spec: Spec, seed: int) -> None:
        aten = import_module(f"accelops.kernels.{spec.op}.aten")
        self._spec, self._rounding = spec, 0.0
        self._given = import_module(f"accelops.kernels.{spec.op}.operands").operands(spec, seed)
        if isinstance(spec, ConvSpec):
            self._run, self._rounding = results, rounding_of_terms(spec, self._given)
            self._exact = in_double(spec, self._given)
        else:
            self._run, self._exact = left_in_place, left_in_place_in_double(aten, spec, self._given)
        self._torchs = self._run(aten, aten.configs(spec)[0], spec, self._given)

    def share(self, module: ModuleType, config: Any) -> float:
        """The share of the allowed error that `config` makes; above 1 it is wrong. Memory for its results is full of NaN, so
        that what it does not write shows. Raises what the kernel raises."""
        with poisoned_memory():
            got = self._run(module, config, self._spec, self._given)
        return share_of_allowed(got, self._torchs, self._exact, self._rounding)


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """torch.empty and Tensor.new_empty give memory full of NaN, so that a result that is not written shows."""
    empty, new_empty = torch.empty, Tensor.new_empty
    with (
        patch.object(torch, "empty", lambda *a, **k: _poison(empty(*a, **k))),
        patch.object(Tensor, "new_empty", lambda *a, **k: _poison(new_empty(*a, **k))),
    ):
        yield


def _poison(tensor: Tensor) -> Tensor:
    return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor


def every_config(spec: Spec, target: str, seed: int) -> Iterator[tuple[Any, float | str]]:
    """Each Config that `target` has for `spec`, with the share of the allowed error that it makes, or with what it raised."""
    module, judge = import_module(f"accelops.kernels.{spec.op}.{target}"), Judge(spec, seed)
    for config in module.configs(spec):
        try:
            yield config, judge.share(module, config)
        except Exception as error:  # whatever it was, it is this Config's verdict
            yield config, f"{type(error).__name__}: {error}"
