"""accelops.explain: which implementation runs, its Config, why, and for every other candidate why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import Tensor

from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.kernels.spec import Spec
from accelops.targets import TARGETS, unavailable

from . import tuned
from .select import Selection, select

if TYPE_CHECKING:
    from .fpga_device import DeviceExplanation


@dataclass(frozen=True)
class Explanation:
    """The Selections of a problem, one for each Spec that it consists of; printed, it reads as sentences."""

    selections: tuple[Selection, ...]

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain values, for JSON."""
        return [
            {
                "op": s.spec.op,
                "spec": s.spec.to_json(),
                "direction": getattr(s.spec, "direction", None),
                "target": s.target,
                "config": tuned.describe(s.config),
                "source": s.source,
                "why": s.why,
                "reasons": s.reasons,
            }
            for s in self.selections
        ]

    def __str__(self) -> str:
        return "\n".join(_sentences(s) for s in self.selections)


def _sentences(selection: Selection) -> str:
    name = f"{selection.spec.op} {getattr(selection.spec, 'direction', '')}".strip()
    lines = [f"{name}: {selection.target} with {selection.config}", f"  because {selection.why} ({selection.source})"]
    lines += [f"  not {target}: {'; '.join(why)}" for target, why in selection.reasons.items()]
    return "\n".join(lines)


def explain(op: str | Spec, target: str | None = None, **problem: Any) -> Explanation | DeviceExplanation:
    """What runs for a problem, and why.

    explain(spec) takes any Spec. explain("conv", input=, weight=, stride=1, padding=0, dilation=1, groups=1, ...) takes
    shapes or tensors and torch's parameters (the fields of ConvSpec), and answers for fprop, dgrad and wgrad;
    explain("adam", ...) and explain("bucket", ...) take the fields of AdamSpec and BucketSpec. `target` asks for one by
    name. explain("fpga") says what ran on the boards of device "fpga", what fell to the CPU, and what moved. Raises
    ValueError for an unknown op, TypeError for an unknown field, TargetUnavailable as `use` does.
    """
    if op == "fpga":
        return import_module("accelops.dispatch.fpga_device").explanation()
    if isinstance(op, Spec):
        specs: list[Spec] = [op]
    elif op == "conv":
        specs = list(_conv_specs(**problem))
    elif op in ("adam", "bucket"):
        module = import_module(f"accelops.kernels.{op}.spec")
        specs = [getattr(module, f"{op.capitalize()}Spec")(**problem)]
    else:
        raise ValueError(f"explain: op={op!r} is unknown; choose conv, adam or bucket, give a Spec, or ask for fpga")
    for candidate in TARGETS:
        unavailable(candidate)  # Selections are made anew where one came or went
    return Explanation(tuple(select(spec, target) for spec in specs))


def _conv_specs(
    input: Tensor | Sequence[int],
    weight: Tensor | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    output_padding: int | Sequence[int] = 0,
    direction: str | None = None,
    **fields: Any,
) -> list[ConvSpec]:
    """A ConvSpec for each direction (or the one that is asked for), with torch's defaults."""
    if isinstance(input, Tensor):
        fields.setdefault("dtype", str(input.dtype).removeprefix("torch."))
        fields.setdefault("device", input.device.type)
    shape, kernel = (tuple(t.shape) if isinstance(t, Tensor) else tuple(t) for t in (input, weight))
    if len(shape) not in (3, 4, 5) or len(kernel) != len(shape):
        raise ValueError(
            f"explain: input={shape} and weight={kernel} must both have 3, 4 or 5 dimensions (N C and 1 to 3 spatial)"
        )
    n = len(shape) - 2
    spread = {k: (v,) * n if isinstance(v, int) else tuple(v) for k, v in (("stride", stride), ("padding", padding), ("dilation", dilation), ("output_padding", output_padding))}  # fmt: skip
    if not fields.get("transposed"):
        spread["output_padding"] = ()
    chosen = DIRECTIONS if direction is None else (direction,)
    return [ConvSpec(direction=d, input=shape, weight=kernel, **spread, **fields) for d in chosen]
