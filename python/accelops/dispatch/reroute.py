"""accelops.enable(): torch's own convolution and Adam, rerouted through dispatch.

Convolution: aten::convolution and aten::convolution_backward are overridden at the backend key, under autograd, so that
autograd, autocast, functorch, compile and export work as they do with torch. On the CPU the override is native
(reroute.cpp) and remembers decisions; this file decides. Adam: the functional torch.optim.adam.adam, which every Adam and
AdamW shares, is replaced. Both are installed once and then switched: un-registering under running threads crashes.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.optim.adam as torch_adam
from torch import Tensor

from accelops.kernels.adam.aten import functional as torchs_adam
from accelops.kernels.conv import aten
from accelops.kernels.conv.tensors import memory_format
from accelops.targets import TARGETS, TargetUnavailable, unavailable
from accelops.targets.cpu import native

from . import adam, conv
from .select import OPS, Selection, asked_target, cached_by, select

Scope = tuple[frozenset[str], tuple[str, ...]]  # the ops that are rerouted, the targets that may serve them

_lock = threading.RLock()
_enabled: list[tuple[object, Scope]] = []  # what is in force is the last; a scope that ends leaves from wherever it is
_numbers: dict[Scope, int] = {}  # native code knows scopes by number
_scope_in_force: Scope | None = None
_raised = threading.local()


def enable(ops: tuple[str, ...] | None = None, targets: tuple[str, ...] | None = None) -> None:
    """Reroute torch's own ops, in all threads, until `disable()`: convolutions, and the step of torch.optim.Adam and AdamW.
    On tensors of torch_xla or torch_tpu too, where that is imported already.

    `ops` (default: all of conv, adam, bucket) and `targets` (default: all) limit what is rerouted and who may serve.
    Every result stays within torch's own error, and a kernel runs only where it was measured faster than torch's.
    Raises ValueError for an unknown op, TargetUnavailable for an unknown target.
    """
    scope = _scope(ops, targets)
    with _lock:
        _install(scope)
        _enabled[:] = [(None, scope)]
        _switch()


def disable() -> None:
    """torch's own kernels again, bit for bit, in all threads; ends every `enabled()` scope too."""
    with _lock:
        _enabled.clear()
        _switch()


@contextmanager
def enabled(ops: tuple[str, ...] | None = None, targets: tuple[str, ...] | None = None) -> Iterator[None]:
    """`enable` for the length of a `with`; scopes nest, and the one entered last is in force (in all threads)."""
    scope = _scope(ops, targets)
    token = object()
    with _lock:
        _install(scope)
        _enabled.append((token, scope))
        _switch()
    try:
        yield
    finally:
        with _lock:
            _enabled[:] = [e for e in _enabled if e[0] is not token]
            _switch()


def is_enabled(op: str) -> bool:
    """Whether torch's own `op` is rerouted now."""
    return _scope_in_force is not None and op in _scope_in_force[0]


def _scope(ops: tuple[str, ...] | None, targets: tuple[str, ...] | None) -> Scope:
    for op in ops or ():
        if op not in OPS:
            raise ValueError(f"enable: ops={ops!r} names {op!r}; choose among {', '.join(OPS)}")
    for target in targets or ():
        missing = unavailable(target)
        if missing is not None:
            raise TargetUnavailable(f"enable: target {target!r} is not available: {missing}")
    return frozenset(ops or OPS), tuple(targets or TARGETS)


def _switch() -> None:
    global _scope_in_force
    _scope_in_force = _enabled[-1][1] if _enabled else None
    if native is not None:
        native.set_scope(_number(_scope_in_force) if is_enabled("conv") else 0)
    torch_adam.adam = _adam if is_enabled("adam") else _adam_at_rest


def _number(scope: Scope) -> int:
    return _numbers.setdefault(scope, 1 + len(_numbers))


# c10/core/MemoryFormat.h
_FORMAT_NUMBERS = {torch.contiguous_format: 0, torch.channels_last: 2, torch.channels_last_3d: 3}


# ---- Adam -----------------------------------------------------------------------------------------------------------


def _adam(*lists: Any, **options: Any) -> None:
    scope = _scope_in_force  # another thread may end it at any moment
    adam.adam(*lists, **options, among=scope[1] if scope else TARGETS)


_adam_at_rest = torchs_adam


def serve_adam_of(device: str) -> None:
    """From now on the Adam of parameters on `device` is dispatch's, whether adam is enabled or not: it is that device's."""
    global _adam_at_rest

    def at_rest(params: list[Tensor], *lists: Any, **options: Any) -> None:
        is_there = bool(params) and params[0].device.type == device
        (adam.adam if is_there else torchs_adam)(params, *lists, **options)

    with _lock:
        _adam_at_rest = at_rest
        _switch()


# ---- convolution ----------------------------------------------------------------------------------------------------

_library: torch.library.Library | None = None


def _install(scope: Scope) -> None:
    if "conv" in scope[0]:
        _install_convolution()
        _install_elsewhere()


def _install_convolution() -> None:
    global _library
    if _library is not None:
        return
    keys = ("CPU", "CUDA") if torch.cuda.is_available() else ("CPU",)
    for key in keys:  # captured before the override hides them
        aten.forward_kernel(key.lower()), aten.backward_kernel(key.lower())
    _library = torch.library.Library("accelops", "FRAGMENT")
    for name, decide in (("convolution", _decide_forward), ("convolution_backward", _decide_backward)):
        schema = str(getattr(torch.ops.aten, name).default._schema)
        _library.define(schema.replace("aten::", "_"))
        for key in keys:
            _library.impl(f"_{name}", decide, key)
    for key in keys:
        if native is None or native.register_override(key):
            _override_in_python(key)


_python_overrides: list[torch.library.Library] = []


def _override_in_python(key: str) -> None:
    """The slower way, where the extension or one of torch's stable C functions (torch >= 2.10) is not there."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")  # that a kernel was there is known
        library.impl("convolution", _python_forward, key)
        library.impl("convolution_backward", _python_backward, key)
    _python_overrides.append(library)


_ELSEWHERE = {"torch_xla": ("XLA", "xla"), "torch_tpu": ("PrivateUse1", "tpu")}  # package: its key, its device type
_overridden_elsewhere: set[str] = set()


def _install_elsewhere() -> None:
    """At the keys of packages that have been imported and bring a device of their own, on which Python is no bottleneck:
    what runs there is compiled, or was put into a queue."""
    for package, (key, device) in _ELSEWHERE.items():
        if package in sys.modules and key not in _overridden_elsewhere:
            aten.forward_kernel(device), aten.backward_kernel(device)  # captured before the override hides them
            _override_in_python(key)
            _overridden_elsewhere.add(key)


def _python_forward(input: Tensor, weight: Tensor, bias: Tensor | None, *parameters: Any) -> Tensor:
    if is_enabled("conv"):
        return _forward(input, weight, bias, parameters)
    return aten.forward_kernel(input.device.type)(input, weight, bias, *parameters)


def _python_backward(grad_output: Tensor, input: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    if is_enabled("conv"):
        return _backward(grad_output, input, weight, rest)
    return aten.backward_kernel(input.device.type)(grad_output, input, weight, *rest)


def take_pending() -> BaseException:
    """What the last failing call in this thread raised, for native code to raise again."""
    error, _raised.error = _raised.error, None
    return error


def _decide_forward(input: Tensor, weight: Tensor, bias: Tensor | None, *parameters: Any) -> Tensor:
    """A convolution whose key native code does not know: choose, run, and remember the choice."""
    try:
        return _forward(input, weight, bias, parameters)
    except BaseException as error:  # passes through torch's C functions as a flag, and is raised again behind them
        return _leave(error, input)


def _decide_backward(grad_output: Tensor, input: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    try:
        return _backward(grad_output, input, weight, rest)
    except BaseException as error:
        return (_leave(error, input),) * 3


def _leave(error: BaseException, like: Tensor) -> Tensor:
    _raised.error = error
    native.set_failed()
    return like.new_empty(0)


def _forward(input: Tensor, weight: Tensor, bias: Tensor | None, parameters: tuple[Any, ...]) -> Tensor:
    selection = _selection("fprop", input, weight, bias, parameters)
    if selection is None:
        return aten.forward_kernel(input.device.type)(input, weight, bias, *parameters)
    if selection.target == "aten":
        output = aten.forward_kernel(input.device.type)(input, weight, bias, *parameters)
        if native is not None:
            native.remember_forward(None)
        return output
    output, _ = conv.run_forward(selection, input, weight, bias, save=False)
    plan = _plan(selection)
    if plan is not None and native is not None:
        native.remember_forward(plan, output.shape, output.stride(), *_copies(selection, (input, weight, bias)))
    return output


def _backward(grad_output: Tensor, input: Tensor, weight: Tensor, rest: tuple[Any, ...]) -> tuple[Tensor | None, ...]:
    bias_sizes, *parameters, mask = rest
    wants_input, wants_weight, wants_bias = mask
    dgrad = _selection("dgrad", input, weight, None, parameters) if wants_input else None
    wgrad = _selection("wgrad", input, weight, weight if wants_bias else None, parameters) if wants_weight else None
    dgrad, wgrad = (None if s is None or s.target == "aten" else s for s in (dgrad, wgrad))
    # What no implementation was selected for comes from torch's kernel, in one call.
    torchs = (wants_input and dgrad is None, wants_weight and wgrad is None, wants_bias and wgrad is None)
    grads: list[Tensor | None] = [None, None, None]
    if any(torchs):
        kernel = aten.backward_kernel(input.device.type)
        grads = list(kernel(grad_output, input, weight, bias_sizes, *parameters, list(torchs)))
    if dgrad is None and wgrad is None:
        if native is not None:
            native.remember_backward(None, (), (), None, (), (), (False,) * 3, 0)
        return tuple(grads)
    ours = conv.run_backward(dgrad, wgrad, grad_output, input, weight, None)
    plans = [None if s is None else _plan(s) for s in (dgrad, wgrad)]
    if native is not None and all(s is None or p is not None for s, p in zip((dgrad, wgrad), plans, strict=True)):
        results = [((), ()) if p is None else (g.shape, g.stride()) for p, g in zip(plans, ours[:2], strict=True)]
        copies = _copies(dgrad or wgrad, (grad_output, input, weight))  # type: ignore[arg-type]
        native.remember_backward(plans[0], *results[0], plans[1], *results[1], *copies)
    return tuple(mine if mine is not None else theirs for mine, theirs in zip(ours, grads, strict=True))


_selections: dict[tuple[Any, ...], Selection | None] = cached_by({})
_MOST_KEPT = 65536  # ever new shapes must not grow it without bound


def _selection(direction: str, input: Tensor, weight: Tensor, bias: Tensor | None, parameters: Any) -> Selection | None:
    """None where torch does not take the call: its kernel then raises its own error. One look-up where it was seen before."""
    stride, padding, dilation, transposed, output_padding, groups = parameters
    tensors = (input, weight) if bias is None else (input, weight, bias)
    kinds = [(t.shape, t.stride(), t.dtype, t.device) for t in tensors]
    rest = (tuple(stride), tuple(padding), tuple(dilation), transposed, tuple(output_padding), groups)
    key = (direction, *kinds, *rest, _scope_in_force, asked_target())
    try:
        return _selections[key]
    except KeyError:
        found = _select(direction, tensors, parameters)
    if len(_selections) >= _MOST_KEPT:
        _selections.clear()
    _selections[key] = found
    return found


def _select(direction: str, tensors: tuple[Tensor, ...], parameters: Any) -> Selection | None:
    input, weight, *bias = tensors
    if len({(t.dtype, t.device) for t in tensors}) != 1 or input.dim() != weight.dim() or input.dim() not in (3, 4, 5):
        return None
    spec = conv.spec_of(direction, input, weight, bool(bias), *parameters)
    if not conv.accepted(spec):
        return None
    return select(spec, among=_scope_in_force[1] if _scope_in_force else TARGETS)


def _plan(selection: Selection) -> Any:
    """The native plan of a Selection, None where its implementation has none (it then runs from Python each time)."""
    plan = getattr(selection.implementation, "plan", None)
    return None if plan is None else plan(selection.config, selection.spec)


def _copies(selection: Selection, tensors: tuple[Tensor | None, ...]) -> tuple[tuple[bool, ...], int]:
    """Which tensors of a call are not dense in the Selection's memory format, and torch's number of that format."""
    form = memory_format(selection.spec)
    dense = (t is None or (t.is_contiguous() if t.dim() == 1 else t.is_contiguous(memory_format=form)) for t in tensors)
    return tuple(not d for d in dense), _FORMAT_NUMBERS[form]
