"""Row: what a benchmark says about one problem, and how it follows from the interleaved times of its variants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch

from accelops.dispatch import tuned
from accelops.dispatch.select import Selection, observed, select
from accelops.kernels.spec import Spec
from accelops.timing import Variant, ratio

from .roofline import Ceilings

DTYPES = ("float32", "bfloat16", "float16")
LOSS = 0.97  # below this a ratio is called a loss; what lies between it and 1 is noise


@dataclass(frozen=True)
class Setting:
    """What a suite is measured with: torch's `device` type ("cpu" or "cuda"), `dtype` of the conv suites and of a training
    step's autocast, `batch` instead of the suite's own, and a `target` asked for by name wherever it supports a problem."""

    device: str = "cpu"
    dtype: str = "float32"
    batch: int | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device={self.device!r} is unknown; choose cpu, or cuda for a GPU")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device='cuda': torch.cuda.is_available() is False; torch's build or the driver lacks it")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} is not measured; choose one of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class Row:
    """`ratio_vs_torch`: torch as called (contiguous, default options) over accelops in the same call.
    `ratio_vs_torch_best`: the fastest of torch's variants over the fastest of accelops'. Both are medians of paired
    rounds; their ranges are the quartiles. The percentages are of the fastest accelops variant, None where the problem
    has no one Spec. `milliseconds` has the median of every variant, and of every peer by its name."""

    name: str
    direction: str
    multiplicity: int
    ran: list[dict[str, Any]]
    ratio_vs_torch: float
    ratio_vs_torch_range: tuple[float, float]
    ratio_vs_torch_best: float
    ratio_vs_torch_best_range: tuple[float, float]
    best: dict[str, str]
    milliseconds: dict[str, float]
    percent_of_copy_bandwidth: float | None = None
    percent_of_matrix_peak: float | None = None
    flops_per_byte: float | None = None
    ratio_vs_peers: dict[str, float] = field(default_factory=dict)
    extra_microseconds: float | None = None

    @property
    def loss(self) -> bool:
        return min(self.ratio_vs_torch, self.ratio_vs_torch_best) < LOSS

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "loss": self.loss}


@dataclass(frozen=True)
class Job:
    """A Row to be measured: `measure(ceilings, seconds)`."""

    name: str
    measure: Callable[[Ceilings, float], Row]


def row(
    name: str,
    direction: str,
    times: Mapping[str, Sequence[float]],
    ran: list[dict[str, Any]],
    spec: Spec | None = None,
    ceilings: Ceilings | None = None,
    multiplicity: int = 1,
    extra_microseconds: float | None = None,
) -> Row:
    """The Row of `times`, whose names begin with "torch" or "accelops" (the first of each is the one as called); any other
    name is a peer's."""
    medians = {variant: median(values) for variant, values in times.items()}
    torchs = [v for v in times if v.startswith("torch")]
    ours = [v for v in times if v.startswith("accelops")]
    best = {"torch": min(torchs, key=medians.__getitem__), "accelops": min(ours, key=medians.__getitem__)}
    called, at_best = ratio(times[torchs[0]], times[ours[0]]), ratio(times[best["torch"]], times[best["accelops"]])
    fastest = medians[best["accelops"]]
    bounded = spec is not None and ceilings is not None
    return Row(
        name=name,
        direction=direction,
        multiplicity=multiplicity,
        ran=ran,
        ratio_vs_torch=called.median,
        ratio_vs_torch_range=(called.low, called.high),
        ratio_vs_torch_best=at_best.median,
        ratio_vs_torch_best_range=(at_best.low, at_best.high),
        best=best,
        milliseconds={variant: 1e3 * seconds for variant, seconds in medians.items()},
        percent_of_copy_bandwidth=ceilings.percent_of_copy(spec, fastest) if bounded else None,
        percent_of_matrix_peak=ceilings.percent_of_peak(spec, fastest) if bounded else None,
        flops_per_byte=spec.flops / spec.bytes if spec is not None and spec.bytes else None,
        ratio_vs_peers={
            peer: ratio(times[peer], times[best["accelops"]]).median for peer in times if peer not in torchs + ours
        },
        extra_microseconds=extra_microseconds,
    )


def selections_of(variant: Variant) -> list[Selection]:
    """What dispatch selects while `variant` runs once."""
    with variant.context():
        with observed() as seen:
            variant.run()
        return [select(spec) for spec in sorted(seen, key=Spec.to_json)]


def ran(variant: str, selections: Sequence[Selection]) -> list[dict[str, Any]]:
    """Selections as a Row shows them."""
    return [
        {
            "variant": variant,
            "op": s.spec.op,
            "target": s.target,
            "kernel": type(s.config).__module__.partition(f".{s.spec.op}.")[2],
            "config": tuned.describe(s.config),
            "source": s.source,
            "why": s.why,
        }
        for s in selections
    ]
