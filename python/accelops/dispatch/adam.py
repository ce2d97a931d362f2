"""The adam op: torch.optim.adam.adam with our implementations behind it, and torch.ops.accelops.adam_.

`adam` has torch's signature, so that it can stand in torch's place: Adam and AdamW of torch.optim call it in their default,
foreach and fused forms. What no implementation of ours takes goes to the functional that torch had, untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from accelops.kernels.adam import aten, native
from accelops.kernels.adam.description import Description
from accelops.kernels.adam.lists import Hyper, Lists
from accelops.targets import TARGETS, TargetUnavailable

from . import tuned
from .select import Selection, asked_target, cached_by, is_observed, select

Scalar = float | Tensor


def adam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    has_complex: bool = False,
    decoupled_weight_decay: bool = False,
    *,
    amsgrad: bool,
    beta1: Scalar,
    beta2: Scalar,
    lr: Scalar,
    weight_decay: float,
    eps: float,
    maximize: bool,
    among: tuple[str, ...] = TARGETS,
) -> None:
    """torch.optim.adam.adam, run by the implementation that is selected `among` targets. Raises what torch raises, and TargetUnavailable
    where accelops.use names a target that cannot serve. Gradients are written only where there is a `grad_scale`: as
    torch's fused step leaves them, unscaled."""
    lists = Lists(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs if amsgrad else (), state_steps)
    options = dict(
        foreach=foreach,
        capturable=capturable,
        differentiable=differentiable,
        fused=fused,
        grad_scale=grad_scale,
        found_inf=found_inf,
        has_complex=has_complex,
        decoupled_weight_decay=decoupled_weight_decay,
        amsgrad=amsgrad,
        beta1=beta1,
        beta2=beta2,
        lr=lr,
        weight_decay=weight_decay,
        eps=eps,
        maximize=maximize,
    )
    if torch.compiler.is_compiling() or not _may_be_ours(params):
        aten.functional(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps, **options)
    else:
        step(lists, options, among=among, unscale=grad_scale is not None)


def _may_be_ours(params: list[Tensor]) -> bool:
    """Whether a step may be anyone's but torch's. On other devices than the CPU no heuristic takes one unmeasured, and to
    read its tensors takes up to 1 us of each."""
    if not params or _is_host(params[0]) or asked_target() or is_observed():
        return True
    device = params[0].device.type
    known = _tabled.get(device)
    if known is None:
        known = _tabled[device] = any(tuned.path("adam", device, source).exists() for source in ("tuned", "shipped"))
    return known


_tabled: dict[str, bool] = cached_by({})


def _is_host(tensor: Tensor) -> bool:
    """Whether this process reads it without a wait for a queue of launches: also where a board's kernel wrote it."""
    return tensor.is_cpu or tensor.device.type == "fpga"


def step(
    lists: Lists,
    options: dict[str, Any],
    clip: float | Tensor = 1.0,
    ema_decay: float | None = None,
    target: str | None = None,
    among: tuple[str, ...] = TARGETS,
    unscale: bool = False,
    wide: bool = False,
    seed: int | None = None,
) -> None:
    """One step by the implementation that is selected. `options` are the keywords of torch.optim.adam.adam; gradients are
    multiplied by `clip` first; `ema_decay` serves lists.emas. `target` asks for one by name, `among` limits the choice.
    `unscale` divides the gradients by the loss scale in place, in a pass of its own after the step. `wide` says that
    moments have another dtype than their parameters; with a `seed`, bf16 parameters are rounded stochastically. On other
    devices than the CPU nothing here waits for them, if the step counts are there too."""
    extended = wide or seed is not None or isinstance(clip, Tensor) or clip != 1
    for part in [lists] if torch.compiler.is_compiling() else lists.parts():
        selection = _selection(part, options, target, among, seed is not None)
        if (selection is None or selection.target == "aten") and not (
            extended or part.masters or part.emas or part.exp_avg_scales or _torch_must_not(part, options, selection)
        ):
            columns = (getattr(part, name) for name in _COLUMNS)
            aten.functional(*map(list, columns), **options)
            continue
        on_host = not part.params or _is_host(part.params[0])
        if on_host and options["found_inf"] is not None and options["found_inf"].item():
            continue
        rest = (options, clip, ema_decay, seed)
        hyper = _hyper(*rest) if on_host else _hyper_on_device(part.params[0].device, *rest)
        if selection is None:
            aten.compose(part, hyper)
        else:
            selection.run(part, hyper)
        if unscale and part.grads:
            _unscale(part.grads, options, on_host)


def grad_norm(lists: Lists) -> Tensor:
    """The 2-norm of all gradients together, in fp64: that of torch.nn.utils.get_total_norm."""
    parts = [] if torch.compiler.is_compiling() else lists.parts()
    if not parts or any(isinstance(p.table, Description) or _why_torch(p, {}) for p in parts):
        return torch.nn.utils.get_total_norm(lists.grads).double()
    return torch.tensor([native.grad_norm(part) for part in parts], dtype=torch.float64, device="cpu").norm()


_COLUMNS = ("params", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "state_steps")


def _hyper(options: dict[str, Any], clip: float | Tensor, ema_decay: float | None, seed: int | None) -> Hyper:
    scale = options["grad_scale"]
    return Hyper(
        lr=float(options["lr"]),
        beta1=float(options["beta1"]),
        beta2=float(options["beta2"]),
        eps=options["eps"],
        weight_decay=options["weight_decay"],
        decoupled=options["decoupled_weight_decay"],
        maximize=options["maximize"],
        grad_factor=float(clip) if scale is None else float(clip) / scale.item(),
        ema_decay=ema_decay or 0.0,
        seed=seed,
    )


def _hyper_on_device(
    device: torch.device, options: dict[str, Any], clip: float | Tensor, ema_decay: float | None, seed: int | None
) -> Hyper:
    """What the device knows it reads itself."""

    def there(given: Any) -> Any:
        return given.to(device, non_blocking=True) if isinstance(given, Tensor) and not given.is_cpu else given

    plain = {**options, "grad_scale": None, "lr": 0.0}
    lr = options["lr"]
    return replace(
        _hyper(plain, 1.0, ema_decay, seed),
        lr=there(lr) if isinstance(lr, Tensor) and not lr.is_cpu else float(lr),
        grad_factor=there(clip),
        grad_scale=there(options["grad_scale"]),
        found_inf=there(options["found_inf"]),
    )


def _torch_must_not(part: Lists, options: dict[str, Any], selection: Selection | None) -> bool:
    """Whether torch's functional refuses or miscalculates what an optimizer of ours is to do all the same."""
    if selection is None:
        return False
    if options["fused"] and part.table.irregular:
        return True
    counts_on_host = options["grad_scale"] is not None and isinstance(part.table, Description)
    return counts_on_host and not part.table.steps_on_device  # where torch's fused kernel wants them


def _unscale(grads: Sequence[Tensor], options: dict[str, Any], on_host: bool) -> None:
    scale, found_inf = options["grad_scale"], options["found_inf"]
    if on_host:
        torch._foreach_div_(grads, scale.item())
        return
    if found_inf is not None:
        scale = torch.where(found_inf == 0, scale, 1.0)  # a step that is skipped leaves the gradients
    torch._foreach_div_(grads, scale.to(grads[0].device, non_blocking=True).reshape(()))


def _selection(
    lists: Lists, options: dict[str, Any], target: str | None, among: tuple[str, ...], stochastic: bool
) -> Selection | None:
    """None where the step is torch's to make, or to refuse. Raises TargetUnavailable where another was asked for."""
    why = _why_torch(lists, options)
    if why is None:
        return select(lists.spec(stochastic), target, among)
    asked = target or asked_target()
    if asked not in (None, "aten"):
        raise TargetUnavailable(f"target {asked!r} cannot serve this adam step: {why}")
    return None


def _why_torch(lists: Lists, options: dict[str, Any]) -> str | None:
    """Why no code of ours must take this step, None where it may."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or _functorch_active():
        return "a compiler, torch_dispatch mode or functorch transform is to see each op"
    if options.get("differentiable"):
        return "differentiable=True is a chain of torch ops"
    scalars = [s for s in (options.get(name) for name in _SCALARS) if isinstance(s, Tensor)]
    scaled = options.get("grad_scale") is not None or options.get("found_inf") is not None
    if scaled and not options.get("fused"):
        return "torch refuses a loss scale without fused=True"
    if scalars or any(map(options.get, _RARE)):
        why = _why_options(lists, options, scalars)
        if why is not None:
            return why
    if torch.is_inference_mode_enabled() or (torch.is_grad_enabled() and any(t.requires_grad for t in lists.written())):
        return "in inference mode, or recording gradients"
    if any(map(Tensor.is_neg, lists.grads)) or (options.get("has_complex") and any(map(Tensor.is_conj, lists.grads))):
        return "a gradient that is a lazy negation or conjugate"
    return lists.table.why or None


def _why_options(lists: Lists, options: dict[str, Any], scalars: list[Tensor]) -> str | None:
    on_cpu = not lists.params or lists.params[0].is_cpu
    foreach, fused, capturable = options.get("foreach"), options.get("fused"), options.get("capturable")
    if foreach and (fused or (scalars and (on_cpu or not capturable))):
        return "torch refuses this combination of foreach, fused and tensor lr"
    if capturable and not fused and (on_cpu or not lists.description.steps_on_device):
        return "torch refuses capturable=True with step counts on the CPU"
    if any(s.numel() != 1 or s.requires_grad for s in scalars):
        return "a tensor hyperparameter that is not one number"
    if any(not s.is_cpu and (on_cpu or s is not options.get("lr")) for s in scalars):
        return "a tensor hyperparameter, other than lr, that is not on the CPU"
    return None


_SCALARS = ("lr", "beta1", "beta2", "weight_decay", "eps")
_RARE = ("foreach", "fused", "capturable")
_functorch_active = torch._C._are_functorch_transforms_active

_library = torch.library.Library("accelops", "FRAGMENT")
_library.define(
    "adam_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, "
    "Tensor(d!)[] max_exp_avg_sqs, Tensor(e!)[] state_steps, *, float lr, float beta1, float beta2, float eps, "
    "float weight_decay, bool amsgrad, bool maximize, bool decoupled_weight_decay) -> ()"
)


@torch.no_grad()
def _adam_op(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    **hyper: Any,
) -> None:
    """The op for graphs; optimizers call `adam`, since the dispatcher takes 0.1 us for each tensor of a list."""
    has_complex = any(map(torch.is_complex, params))
    adam(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps, has_complex=has_complex, **hyper)


_library.impl("adam_", _adam_op, "CompositeExplicitAutograd")
# Above functionalization, which torch_xla always has, and which refuses an op that writes its arguments.
_library.impl("adam_", _adam_op, "AutogradXLA")


@torch.library.register_fake("accelops::adam_", lib=_library)
def _(*lists: list[Tensor], **hyper: Any) -> None:
    return None
