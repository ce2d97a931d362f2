"""Row: what the compiler estimates for one case on one chip, ours beside the stock lowering under the same estimator.

Each case is compiled twice in a process that outlives the cases it survives. Where ours holds Pallas kernels, which HLO
cycles do not see, each side is compiled again, each in a process of its own, for the static LLO profile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import NOT_MEASURED, profile
from .cases import Case
from .chips import Chip
from .estimate import LLO, Estimate, comparable, estimate
from .executable import Executable
from .process import DEADLINE, Compiler, CompilerFailed, Request

STOCK = {op: f"{__package__}.stock.{op}:launches" for op in ("conv", "adam", "bucket")}
OURS = {op: f"{__package__}.own:{op}" for op in ("conv", "adam", "bucket")}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Side:
    """One lowering of a case as the compiler sees it. The estimate is without what is `unmodelled`. `aliased` of `donated` arguments lend a result their memory; `bytes`
    are those of arguments and results, `temporary_bytes` what is needed beside them; `copies` counts those of whole arrays."""

    estimate_us: float
    source: str
    estimator: str
    unmodelled: tuple[str, ...]
    launches: int
    bytes: int
    temporary_bytes: int
    aliased: int
    donated: int
    copies: int
    collectives: int
    compile_s: float


@dataclass(frozen=True)
class Row:
    """`estimate_us` is None where no estimator covers all of it. `ratio_vs_stock`: the stock lowering's estimate over ours, both of one estimator; None where there is none, for
    which `no_ratio` is the reason. `error`: what the compiler said instead of an estimate."""

    name: str
    op: str
    direction: str
    multiplicity: int
    chip: str
    topology: str
    spec: dict[str, Any]
    config: dict[str, Any]
    flops: int
    estimate_us: float | None = None
    source: str = ""
    ratio_vs_stock: float | None = None
    no_ratio: str = ""
    error: str = ""
    ours: Side | None = None
    stock: Side | None = None
    evidence: str = "compiled"
    note: str = field(default=NOT_MEASURED)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Lowered:
    """One side of a case, compiled: by HLO cycles, and by the static LLO profile where that was asked for and is whole."""

    launches: tuple[Executable, ...]
    by_hlo: Estimate
    by_llo: Estimate | None = None
    no_profile: str = ""


class Laboratory:
    """Compiles cases. A context, in which one process serves all requests that it survives."""

    def __init__(self, deadline: float = DEADLINE) -> None:
        self.deadline = deadline
        self._compiler = Compiler(deadline)

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(self, *exception: object) -> None:
        self._compiler.__exit__(*exception)

    def lowered(self, request: Request, chip: Chip, profiled: bool | None = None) -> Lowered:
        """`profiled`: whether to ask for the static LLO profile; without, where there are Pallas kernels. Raises
        CompilerFailed where it cannot be compiled; a profiler that aborts is a reason in the result."""
        launches, flops = self._compiler.compile(request), request.spec.flops
        by_hlo = estimate(launches, chip, flops)
        if not (any(launch.kernels for launch in launches) if profiled is None else profiled):
            return Lowered(launches, by_hlo)
        try:
            return Lowered(launches, by_hlo, estimate(self._profiled(request), chip, flops, llo=True))
        except CompilerFailed as failure:
            why = str(failure)
        kernels = {kernel for launch in launches for kernel in launch.kernels}
        if not kernels:
            return Lowered(launches, by_hlo, None, why)
        try:
            only = estimate(self._profiled(request, kernels), chip, flops, llo=True)
        except CompilerFailed as failure:
            return Lowered(launches, by_hlo, None, str(failure))
        return Lowered(launches, by_hlo, only, why)

    def _profiled(self, request: Request, kernels: Iterable[str] = ()) -> tuple[Executable, ...]:
        """Compiled for the static LLO profile, of `kernels` alone where some are named, in a process of its own."""
        only = [f"{profile.ONLY_FLAG}={'|'.join(sorted(kernels))}"] if kernels else []
        with (
            tempfile.TemporaryDirectory(prefix="accelops-") as folder,
            Compiler(self.deadline, [f"{profile.FLAG}={folder}", *only], Path(folder)) as compiler,
        ):
            return compiler.compile(request)


def rows(
    cases: Sequence[Case],
    chips: Sequence[Chip],
    configs: Callable[[Case, Chip], dict[str, Any]],
    baseline: bool = True,
    deadline: float = DEADLINE,
    progress: Progress = lambda done, total, name: None,
) -> Iterator[Row]:
    """One for each case and chip, with the Config that `configs` gives it."""
    total = len(cases) * len(chips)
    with Laboratory(deadline) as laboratory:
        for i, (chip, case) in enumerate((chip, case) for chip in chips for case in cases):
            progress(i, total, f"{chip.name} {case.name}")
            yield row(laboratory, case, chip, configs(case, chip), baseline)
        progress(total, total, "")


def row(laboratory: Laboratory, case: Case, chip: Chip, config: dict[str, Any], baseline: bool = True) -> Row:
    """Whatever fails is in the row."""
    spec, topology = case.spec, case.topology(chip)
    what: dict[str, Any] = {
        "name": case.name,
        "op": spec.op,
        "direction": getattr(spec, "direction", ""),
        "multiplicity": case.multiplicity,
        "chip": chip.name,
        "topology": topology,
        "spec": asdict(spec),  # type: ignore[call-overload]
        "config": config,
        "flops": spec.flops,
    }
    try:
        request = Request(OURS[spec.op], spec, topology, case.devices, case.options | {"config": config})
        ours = laboratory.lowered(request, chip)
    except CompilerFailed as failure:
        return Row(**what, error=str(failure))
    best = ours.by_llo or ours.by_hlo
    what["ours"] = _side(ours.launches, best)
    if not best.unmodelled:
        what |= {"estimate_us": 1e6 * best.seconds, "source": best.source}
    if not baseline:
        return Row(**what, no_ratio="no baseline was asked for")
    try:
        request = Request(STOCK[spec.op], spec, topology, case.devices, case.options | case.baseline)
        stock = laboratory.lowered(request, chip, profiled=best.estimator == LLO)
    except CompilerFailed as failure:
        return Row(**what, no_ratio=f"the stock lowering: {failure}")
    other = stock.by_llo if best.estimator == LLO and stock.by_llo else stock.by_hlo
    ratio, reason = _ratio(best, other, ours.no_profile or stock.no_profile)
    return Row(**what, stock=_side(stock.launches, other), ratio_vs_stock=ratio, no_ratio=reason)


def _ratio(ours: Estimate, stock: Estimate, no_profile: str) -> tuple[float | None, str]:
    if comparable(ours, stock):
        return stock.seconds / ours.seconds, ""
    unmodelled = (*ours.unmodelled, *stock.unmodelled)
    if unmodelled:
        return None, f"no estimator covers {', '.join(dict.fromkeys(unmodelled))}" + (
            f": {no_profile}" if no_profile else ""
        )
    return None, f"two estimators do not compare: {ours.estimator}, and {stock.estimator} for stock: {no_profile}"


def _side(launches: Sequence[Executable], found: Estimate) -> Side:
    return Side(
        estimate_us=1e6 * found.seconds,
        source=found.source,
        estimator=found.estimator,
        unmodelled=found.unmodelled,
        launches=len(launches),
        bytes=sum(launch.bytes for launch in launches),
        temporary_bytes=max(launch.temporary_bytes for launch in launches),
        aliased=sum(len(launch.aliased) for launch in launches),
        donated=sum(launch.donated for launch in launches),
        copies=sum(launch.copies for launch in launches),
        collectives=sum(launch.collectives for launch in launches),
        compile_s=sum(launch.compile_s for launch in launches),
    )
