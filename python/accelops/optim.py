"""Adam and AdamW: those of torch.optim, stepped by the selected implementation, with four extras.

They are subclasses of torch's: schedulers, GradScaler, hooks, param groups and closures work, and state dicts load both
ways. A GradScaler's scale is divided out on the way, without a pass of its own, and the gradients keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, _use_grad_for_differentiable

from accelops.dispatch import adam as dispatch
from accelops.kernels.adam.lists import Lists

_HALF = (torch.bfloat16, torch.float16)
_FULL_PRECISION = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "master", "ema")  # state, with master_weights
# Its name since torch 2.10, and before.
_capture_check = (
    getattr(Optimizer, "_accelerator_graph_capture_health_check", None) or Optimizer._cuda_graph_capture_health_check
)


class _Extended(torch.optim.Adam):
    def __init__(
        self,
        params: Iterable[Any],
        *arguments: Any,
        target: str | None = None,
        master_weights: bool = False,
        max_grad_norm: float | None = None,
        ema_decay: float | None = None,
        **options: Any,
    ) -> None:
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(
                f"Invalid max_grad_norm value: {max_grad_norm}; give a positive number, or None not to clip"
            )
        if ema_decay is not None and not 0.0 <= ema_decay <= 1.0:
            raise ValueError(f"Invalid ema_decay value: {ema_decay}; give a number from 0 to 1, or None for no average")
        super().__init__(params, *arguments, **options)
        per_group = {"master_weights": master_weights, "ema_decay": ema_decay}
        if self.defaults["differentiable"] and (target or max_grad_norm or any(per_group.values())):
            raise RuntimeError("`differentiable` does not support target, master_weights, max_grad_norm and ema_decay")
        self.defaults.update(per_group, target=target, max_grad_norm=max_grad_norm)
        for group in self.param_groups:
            for name, value in per_group.items():
                group.setdefault(name, value)
        self._step_supports_amp_scaling = not self.defaults["differentiable"]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("master_weights", self.defaults.get("master_weights", False))
            group.setdefault("ema_decay", self.defaults.get("ema_decay"))
        self._step_supports_amp_scaling = not self.defaults["differentiable"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this class or of torch's. torch casts state to the parameters' dtype; with master_weights
        it is kept as it was saved."""
        super().load_state_dict(state_dict)
        saved_ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for group in self.param_groups:
            for param, saved_id in zip(group["params"], saved_ids, strict=False):
                saved = state_dict["state"].get(saved_id, {})
                if param.dtype in _HALF:
                    keys = _FULL_PRECISION if group["master_weights"] else ("ema",)
                    for key in keys:
                        if key in saved:
                            self.state[param][key] = saved[key].to(param.device, torch.float32, copy=True)

    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step (torch.optim.Adam.step). With max_grad_norm, all gradients together are clipped on the way as by
        torch.nn.utils.clip_grad_norm_, and stay as they are."""
        _capture_check(self)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [(group, *self._lists(group)) for group in self.param_groups]
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        clip = self._clip_coefficient([lists for _, lists, _ in work], scale)
        for group, lists, has_complex in work:
            self._step_group(group, lists, has_complex, scale, found_inf, clip)
        return loss

    def _lists(self, group: dict[str, Any]) -> tuple[Lists, bool]:
        if group["master_weights"]:
            self._keep_full_precision(group)
        columns: tuple[list[Tensor], ...] = ([], [], [], [], [], [])
        has_complex = self._init_group(group, *columns)
        params = columns[0]
        masters = [self._master(p) for p in params] if group["master_weights"] else ()
        emas = [self._ema(p) for p in params] if group["ema_decay"] is not None else ()
        return Lists(*columns, masters, emas), bool(has_complex)

    def _keep_full_precision(self, group: dict[str, Any]) -> None:
        """Make the state that torch would make, or has made, in half precision."""
        for p in group["params"]:
            if p.grad is None or p.dtype not in _HALF:
                continue
            state = self.state[p]
            if not state:
                step_on = p.device if group["capturable"] or group["fused"] else "cpu"
                state["step"] = torch.zeros((), dtype=torch.float32, device=step_on)
                for key in ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ())):
                    state[key] = torch.zeros_like(p, dtype=torch.float32, memory_format=torch.preserve_format)
            for key in _FULL_PRECISION:
                if key in state and state[key].dtype is not torch.float32:
                    state[key] = state[key].float()

    def _master(self, p: Tensor) -> Tensor:
        """The fp32 copy of a half precision parameter; what is of full precision is its own master."""
        if p.dtype not in _HALF:
            return p
        state = self.state[p]
        if "master" not in state:
            state["master"] = p.detach().float()
        return state["master"]

    def _ema(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "ema" not in state:
            state["ema"] = p.detach().to(torch.float32 if p.dtype in _HALF else p.dtype, copy=True)
        return state["ema"]

    def _clip_coefficient(self, work: list[Lists], scale: Tensor | None) -> float | Tensor:
        limit = self.defaults.get("max_grad_norm")
        if limit is None:
            return 1.0
        norms = [dispatch.grad_norm(lists) for lists in work]
        norm = torch.stack([norm.to(norms[0].device) for norm in norms]).norm()
        if scale is not None:
            norm = norm / scale.to(norm)
        coefficient = torch.clamp(limit / (norm + 1e-6), max=1.0)
        return float(coefficient) if coefficient.is_cpu else coefficient.float()

    def _step_group(
        self,
        group: dict[str, Any],
        lists: Lists,
        has_complex: bool,
        scale: Tensor | None,
        found_inf: Tensor | None,
        clip: float | Tensor,
    ) -> None:
        names = "amsgrad lr weight_decay eps maximize foreach capturable differentiable fused decoupled_weight_decay"
        options = {name: group[name] for name in names.split()}
        options["beta1"], options["beta2"] = group["betas"]
        if scale is not None or found_inf is not None:
            options.update(foreach=False, fused=True)  # the only form of torch's that takes them
        options.update(has_complex=has_complex, grad_scale=scale, found_inf=found_inf)
        dispatch.step(lists, options, clip, group["ema_decay"], self.defaults.get("target"))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the parameters hold the averages of their values (ema_decay; state key "ema"), for
        evaluation or saving; after it, themselves again. Parameters that were never stepped stay as they are."""
        params = [p for group in self.param_groups for p in group["params"] if "ema" in self.state.get(p, ())]
        kept = [p.detach().clone() for p in params]
        with torch.no_grad():
            for p in params:
                p.copy_(self.state[p]["ema"])
        try:
            yield
        finally:
            with torch.no_grad():
                for p, own in zip(params, kept, strict=True):
                    p.copy_(own)


class Adam(_Extended):
    """torch.optim.Adam (Kingma & Ba 2015), and keyword-only:

    target: run on this target by name (accelops.use).
    master_weights: step fp32 copies of bf16 and fp16 parameters (state key "master"), with fp32 moments, and round them
        into the parameters.
    max_grad_norm: clip the norm of all gradients together.
    ema_decay: keep an average of the weights, ema = ema_decay * ema + (1 - ema_decay) * weight (state key "ema", fp32 for
        half precision), that starts at the first step's weights; see `averaged`.
    master_weights and ema_decay may differ between param groups. Raises as torch.optim.Adam, and ValueError for a limit or
    decay out of range.
    """


class AdamW(_Extended, torch.optim.AdamW):
    """torch.optim.AdamW (Loshchilov & Hutter 2019), with the keywords of accelops.optim.Adam."""
