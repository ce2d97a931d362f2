"""accelops.fpga_device: torch's device "fpga", and which ops its boards do: convolutions, the step of Adam and AdamW.

torch hands the device its convolutions by convolution_overrideable and its backward, and its fused Adam; the functional form
of Adam, which every other Adam of torch.optim calls, is replaced for parameters on a board. What a board does not do of
these, and every other op, the CPU does, on copies: counted, and told by accelops.explain("fpga").
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accelops.kernels.adam.lists import Lists
from accelops.targets.fpga.device import register_device
from accelops.targets.fpga.driver import Driver

from . import adam, conv, reroute
from .select import Selection, select

_lock = threading.Lock()
_library: torch.library.Library | None = None
_refused: Counter[tuple[str, str]] = Counter()  # op, reasons


def fpga_device(*drivers: Driver) -> torch.device:
    """Make FPGA boards a device of torch's: `drivers`, or every board that is found, are fpga:0, fpga:1 and so on. Returns
    fpga:0, for `model.to(device)`. Compiles the device (half a minute) where that was not done yet for the torch that is
    installed. Raises TargetUnavailable without a board, a C++ compiler, or where another package has torch's place."""
    register_device(drivers)
    with _lock:
        _install()
    return torch.device("fpga", 0)


def _install() -> None:
    global _library
    if _library is not None:
        return
    _library = torch.library.Library("aten", "IMPL")
    _library.impl("convolution_overrideable", _convolution, "PrivateUse1")
    _library.impl("convolution_backward_overrideable", _convolution_backward, "PrivateUse1")
    for name in ("_fused_adam_", "_fused_adamw_"):
        for overload in ("", ".tensor_lr"):
            _library.impl(f"{name}{overload}", _fused_adam(name), "PrivateUse1")
    reroute.serve_adam_of("fpga")


# ---- convolution ----------------------------------------------------------------------------------------------------


def _convolution(input: Tensor, weight: Tensor, bias: Tensor | None, *parameters: Any) -> Tensor:
    _check_one_device(input, weight, bias)
    selection = select(conv.spec_of("fprop", input, weight, bias is not None, *parameters))
    if selection.target == "fpga":
        return conv.run_forward(selection, input, weight, bias, save=False)[0]
    _count("aten::convolution", selection)
    operands = (None if t is None else t.cpu() for t in (input, weight, bias))
    return torch.ops.aten.convolution.default(*operands, *parameters).to(input.device)


def _convolution_backward(
    grad_output: Tensor, input: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    *parameters, (wants_input, wants_weight, wants_bias) = rest
    _check_one_device(grad_output, input, weight)
    dgrad = select(conv.spec_of("dgrad", input, weight, False, *parameters)) if wants_input else None
    wgrad = select(conv.spec_of("wgrad", input, weight, wants_bias, *parameters)) if wants_weight else None
    there = [None if s is None or s.target != "fpga" else s for s in (dgrad, wgrad)]
    grads: list[Tensor | None] = [None, None, None]  # torch sums up the bias gradient where there is none
    if any(there):
        grads = list(conv.run_backward(*there, grad_output, input, weight, None))
    here = [s is not None and s.target != "fpga" for s in (dgrad, wgrad)]
    if any(here):
        for selection, is_here in zip((dgrad, wgrad), here, strict=True):
            if is_here:
                _count("aten::convolution_backward", selection)
        operands = (t.cpu() for t in (grad_output, input, weight))
        made = torch.ops.aten.convolution_backward.default(*operands, None, *parameters, [*here, False])
        grads = [g if m is None else m.to(input.device) for g, m in zip(grads, made, strict=True)]
    return tuple(grads)  # type: ignore[return-value]


def _check_one_device(*tensors: Tensor | None) -> None:
    devices = {str(t.device) for t in tensors if t is not None}
    if len(devices) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {' and '.join(sorted(devices))}!"
        )


# ---- Adam -----------------------------------------------------------------------------------------------------------


def _fused_adam(name: str) -> Callable[..., None]:
    """The kernel of torch's op `name`."""

    def step(*lists: list[Tensor], **options: Any) -> None:
        """torch has counted the step already, and takes that back itself where `found_inf` skips it."""
        *columns, counts = lists
        before = Lists(*columns, [count.cpu() - 1 for count in counts])
        selection = None if before.table.why else select(before.spec())
        if selection is None or selection.target != "fpga":
            _count(f"aten::{name}", selection, before.table.why)
            _fused_adam_on_cpu(getattr(torch.ops.aten, name), lists, options)
            return
        decoupled, has_complex = name == "_fused_adamw_", any(map(torch.is_complex, columns[0]))
        adam.adam(*columns, before.state_steps, fused=True, decoupled_weight_decay=decoupled, has_complex=has_complex, **options)  # fmt: skip

    return step


def _fused_adam_on_cpu(op: Callable[..., None], lists: tuple[list[Tensor], ...], options: dict[str, Any]) -> None:
    copies = [[t.cpu() for t in column] for column in lists]
    op(*copies, **{name: v.cpu() if isinstance(v, Tensor) else v for name, v in options.items()})
    for column, copied in zip(lists, copies, strict=True):
        for original, copy in zip(column, copied, strict=True):
            original.copy_(copy)


# ---- what happened --------------------------------------------------------------------------------------------------


def _count(op: str, selection: Selection | None, why: str = "") -> None:
    _refused[op, why if selection is None else "; ".join(selection.reasons.get("fpga", [selection.why]))] += 1


@dataclass(frozen=True)
class DeviceExplanation:
    """What the boards of device "fpga" did since they were registered, and what fell to the CPU; printed, it reads as
    sentences. `boards`: torch.fpga.memory_stats of each, by device and name. `refused`: calls of ops that boards do, by op and
    reason. `fallbacks`: calls of other ops."""

    boards: dict[str, dict[str, int]]
    refused: dict[tuple[str, str], int]
    fallbacks: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        refused = [{"op": op, "reason": reason, "calls": calls} for (op, reason), calls in self.refused.items()]
        return {"boards": self.boards, "refused": refused, "fallbacks": self.fallbacks}

    def __str__(self) -> str:
        lines = []
        for name, stats in self.boards.items():
            lines.append(f"{name}: {stats['launches']} launches, {stats['switches']} changes of the overlay")
            lines.append(f"  {stats['flushed']} bytes went there, {stats['fetched']} came back")
            lines.append(f"  {stats['allocated']} bytes of its memory hold tensors, {stats['max_allocated']} at most")
        lines += [f"{op} fell to the CPU {calls} times: {why}" for (op, why), calls in self.refused.items()]
        for op, calls in sorted(self.fallbacks.items(), key=lambda entry: -entry[1]):
            lines.append(f"{op} fell to the CPU {calls} times: no board does it")
        return "\n".join(lines)


def explanation() -> DeviceExplanation:
    """Raises RuntimeError before accelops.fpga_device was called."""
    if _library is None:
        raise RuntimeError('explain: there is no device "fpga" yet; accelops.fpga_device() makes boards one')
    there = torch.fpga  # type: ignore[attr-defined]
    boards: Sequence[int] = range(there.device_count())
    return DeviceExplanation(
        boards={f"fpga:{i} ({there.get_device_name(i)})": there.memory_stats(i) for i in boards},
        refused=dict(_refused),
        fallbacks=dict(torch.ops.accelops_fpga.fallbacks()),
    )
