"""Which implementation and Config serve a Spec, and why.

In this order: the target asked for by name > the user's tuned table > the shipped table > an implementation's heuristic >
torch's own kernel. Tensors of the device "fpga" are asked for by where they are: their board, and what it does not do torch's
own, on the CPU. A Selection is made once per Spec and kept.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from accelops.kernels.spec import Spec
from accelops.targets import TARGETS, KernelFailed, TargetUnavailable, emulated, follow, unavailable
from accelops.targets.cpu import native

from . import tuned

OPS = ("conv", "adam", "bucket")


@dataclass(frozen=True)
class Selection:
    """What runs for `spec`: `target` with `config`; `source` is one of asked, device, tuned, shipped, heuristic, torch; `why`
    says it in words; `reasons` holds, for each other candidate, why it was not taken."""

    spec: Spec
    target: str
    config: Any
    source: str
    why: str
    reasons: dict[str, list[str]] = field(hash=False, compare=False)

    @property
    def implementation(self) -> ModuleType:
        """It could be used when this was selected."""
        return _module(self.spec.op, self.target)

    @cached_property
    def _bound(self) -> Callable[..., Any]:
        return bound(self.implementation, self.config, self.spec)

    def run(self, *operands: Any, **options: Any) -> Any:
        """Run the implementation; torch's own where a kernel fails that was not asked for by name."""
        try:
            return self._bound(*operands, **options)
        except KernelFailed as failure:
            if self.source == "asked":
                raise
            _set_aside(self, failure)
            aten = implementation(self.spec.op, "aten")
            return aten.run(aten.configs(self.spec)[0], self.spec, *operands, **options)


def bound(module: ModuleType, config: Any, spec: Spec) -> Callable[..., Any]:
    """The implementation's `run` for a Config and a Spec, as it prepares it where it has a `bind`."""
    return module.bind(config, spec) if hasattr(module, "bind") else partial(module.run, config, spec)


@cache
def candidates(op: str) -> tuple[str, ...]:
    """The targets that have an implementation of `op`, found by its path."""
    return tuple(t for t in TARGETS if find_spec(f"accelops.kernels.{op}.{t}") is not None)


@cache
def implementation(op: str, target: str) -> ModuleType:
    """The module accelops.kernels.<op>.<target>. Raises TargetUnavailable where there is none or it cannot be used."""
    missing = unavailable(target)
    if missing is None and target not in candidates(op):
        missing = f"it has no {op}; targets that have one: {', '.join(candidates(op))}"
    if missing is not None:
        raise TargetUnavailable(f"target {target!r} is not available for {op}: {missing}")
    return _module(op, target)


def _module(op: str, target: str) -> ModuleType:
    return import_module(f"accelops.kernels.{op}.{target}")


_failed: dict[tuple[str, str, str, Any], str] = {}  # (op, target, device, Config) of kernels that failed, and how


def _set_aside(selection: Selection, failure: KernelFailed) -> None:
    spec, target, config = selection.spec, selection.target, selection.config
    key = (spec.op, target, spec.device, config)
    if key not in _failed:
        _failed[key] = f"{config} failed on {tuned.device_name(spec.device)}: {failure}"
        warnings.warn(f"accelops: {spec.op} on {target}: {_failed[key]}; set aside, torch's own runs", stacklevel=3)
    forget()


def _failure(spec: Spec, target: str, config: Any) -> str | None:
    return _failed.get((spec.op, target, spec.device, config)) if _failed else None


_asked = threading.local()
_KEY = "accelops.use"  # in torch's thread-local state, which autograd's own threads take over from who calls backward


def asked_target() -> str | None:
    """The target that accelops.use named in this thread, or in that for which autograd runs this one."""
    target = getattr(_asked, "target", None)
    if target is None and _ever_asked and not torch.compiler.is_compiling() and torch._C._is_key_in_tls(_KEY):
        return torch._C._get_obj_in_tls(_KEY)
    return target


@contextmanager
def use(target: str) -> Iterator[None]:
    """Within this context and thread every accelops op runs on `target`, by name: one of reference, cpu, triton, xla,
    fpga, aten. What the target cannot serve raises TargetUnavailable with its reasons; nothing falls back silently.
    torch's own ops take part while accelops.enable() is in force."""
    missing = unavailable(target)
    if missing is not None:
        raise TargetUnavailable(f"target {target!r} is not available: {missing}")
    outer = asked_target()
    _set_asked(target)
    try:
        yield
    finally:
        _set_asked(outer)


_ever_asked: list[bool] = []  # not empty once someone has asked: spares a look-up


def _set_asked(target: str | None) -> None:
    _asked.target = target
    torch._C._stash_obj_in_tls(_KEY, target)
    _ever_asked[:] = [True]
    if native is not None:
        native.set_target(0 if target is None else 1 + TARGETS.index(target))


def select(spec: Spec, target: str | None = None, among: tuple[str, ...] = TARGETS) -> Selection:
    """The Selection for `spec`. `target` (or, without it, accelops.use) names one that must serve; `among` limits the
    choice otherwise, torch's own kernel always allowed. Raises TargetUnavailable as `use` does."""
    for seen in _observers:
        seen.add(spec)
    asked = target or asked_target()
    if asked:
        return _asked_for(spec, asked)
    return _on_board(spec) if spec.device == "fpga" else _chosen(spec, among)


_observers: list[set[Spec]] = []


def is_observed() -> bool:
    """Whether someone collects the Specs of all calls."""
    return bool(_observers)


_caches: list[Any] = []  # objects with `clear`, in which others keep Selections by keys of their own


@contextmanager
def observed() -> Iterator[set[Spec]]:
    """Collects the Specs that any thread selects for, including those whose Selection was already made."""
    seen: set[Spec] = set()
    forget()
    _observers.append(seen)
    try:
        yield seen
    finally:
        _observers.remove(seen)


def cached_by(cache: Any) -> Any:
    """Register a dictionary that keeps Selections, so that `forget` clears it too; returns it."""
    _caches.append(cache)
    return cache


@lru_cache(maxsize=65536)
def _asked_for(spec: Spec, target: str) -> Selection:
    module = implementation(spec.op, target)
    refusals = module.unsupported(spec)
    if refusals:
        raise TargetUnavailable(f"target {target!r} cannot serve {spec}: {'; '.join(refusals)}")
    others = {t: [f"{target} was asked for by name"] for t in candidates(spec.op) if t != target}
    return Selection(spec, target, _best_config(module, spec), "asked", f"{target} was asked for by name", others)


def _best_config(module: ModuleType, spec: Spec) -> Any:
    """A named target runs what its heuristic takes, or else its first Config."""
    if hasattr(module, "heuristic"):
        config, _ = module.heuristic(spec)
        if config is not None:
            return config
    return module.configs(spec)[0]


@lru_cache(maxsize=65536)
def _on_board(spec: Spec) -> Selection:
    """Of tensors on a board: what it does there, else torch's own on the CPU, between which and the board they are copied."""
    module = _module(spec.op, "fpga")  # whoever looks for boards may find none: these were given
    refusals = module.unsupported(spec)
    where = "its tensors are in the board's memory"
    reasons = {t: [where] for t in candidates(spec.op) if t not in ("fpga", "aten")}
    if refusals:
        config = implementation(spec.op, "aten").configs(spec)[0]
        why = "the board does not do it, so it falls to the CPU"
        return Selection(spec, "aten", config, "torch", why, {**reasons, "fpga": refusals})
    return Selection(spec, "fpga", _best_config(module, spec), "device", where, {**reasons, "aten": [where]})


@lru_cache(maxsize=65536)
def _chosen(spec: Spec, among: tuple[str, ...]) -> Selection:
    reasons: dict[str, list[str]] = {}
    modules: dict[str, ModuleType] = {}
    for name in candidates(spec.op):
        if name == "aten":
            continue
        refusal = _refusal(spec, name, among)
        if refusal:
            reasons[name] = refusal
        else:
            modules[name] = implementation(spec.op, name)
    found = _from_tables(spec, modules, reasons) or _from_heuristics(spec, modules, reasons)
    if found is None:
        config = implementation(spec.op, "aten").configs(spec)[0]
        found = Selection(spec, "aten", config, "torch", "no other candidate is known to be faster", reasons)
    elif found.target != "aten":
        reasons.pop(found.target, None)  # another Config of its own failed
        reasons.setdefault("aten", []).append(f"{found.target} was measured faster ({found.source})")
    for name in modules:
        if name != found.target:
            reasons.setdefault(name, [f"{found.target} was taken ({found.source})"])
    return found


def _refusal(spec: Spec, name: str, among: tuple[str, ...]) -> list[str]:
    if name not in among:
        return ["not among the targets that were enabled"]
    missing = unavailable(name)
    if missing is not None:
        return [missing]
    if emulated(name):
        return ["is emulated here, which has no speed; ask for it by name"]
    return implementation(spec.op, name).unsupported(spec)


def _from_tables(spec: Spec, modules: dict[str, ModuleType], reasons: dict[str, list[str]]) -> Selection | None:
    for source in ("tuned", "shipped"):
        entry = tuned.lookup(spec, source)
        if entry is None:
            continue
        if entry.target == "aten":
            why = f"the {source} table measured torch's own kernel as the fastest"
            for name in modules:
                reasons[name] = [why]
            return Selection(spec, "aten", implementation(spec.op, "aten").configs(spec)[0], source, why, reasons)
        module = modules.get(entry.target)
        config = module and next((c for c in module.configs(spec) if tuned.describe(c) == entry.config), None)
        if config is None:
            continue
        failure = _failure(spec, entry.target, config)
        if failure is None:
            why = f"the {source} table measured it at {entry.ratio:.2f}x of torch's speed"
            return Selection(spec, entry.target, config, source, why, reasons)
        reasons[entry.target] = [failure]
    return None


def _from_heuristics(spec: Spec, modules: dict[str, ModuleType], reasons: dict[str, list[str]]) -> Selection | None:
    for name, module in modules.items():
        if not hasattr(module, "heuristic"):
            reasons.setdefault(name, ["never chosen for speed; ask for it by name"])
            continue
        config, why = module.heuristic(spec)
        failure = _failure(spec, name, config)
        if config is not None and failure is None:
            return Selection(spec, name, config, "heuristic", why, reasons)
        reasons.setdefault(name, [failure or why])
    return None


def forget() -> None:
    """Drop all kept Selections; the next call of each Spec selects anew."""
    _asked_for.cache_clear()
    _on_board.cache_clear()
    _chosen.cache_clear()
    for kept in _caches:
        kept.clear()
    if native is not None:
        native.forget()


follow(forget)  # Selections name what was missing
