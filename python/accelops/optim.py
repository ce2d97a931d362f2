"""Adam and AdamW: those of torch.optim, stepped by the selected implementation, with extras.

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
from accelops.kernels.adam import blockwise
from accelops.kernels.adam.lists import Lists

_STATE_BITS = (None, 8, 32)
_HALF = (torch.bfloat16, torch.float16)
_FULL_PRECISION = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "master", "ema")  # state, with master_weights
_IN_8_BITS = tuple(f"{moment}_{part}" for moment in ("exp_avg", "exp_avg_sq") for part in ("codes", "scales"))
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
        state_bits: int | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(
                f"Invalid max_grad_norm value: {max_grad_norm}; give a positive number, or None not to clip"
            )
        if ema_decay is not None and not 0.0 <= ema_decay <= 1.0:
            raise ValueError(f"Invalid ema_decay value: {ema_decay}; give a number from 0 to 1, or None for no average")
        if not 0 <= seed < 2**63:
            raise ValueError(f"Invalid seed value: {seed}; give an integer from 0 to 2**63 - 1")
        super().__init__(params, *arguments, **options)
        per_group = dict(
            master_weights=master_weights,
            ema_decay=ema_decay,
            state_bits=state_bits,
            stochastic_rounding=stochastic_rounding,
        )
        if self.defaults["differentiable"] and (target or max_grad_norm or any(per_group.values())):
            raise RuntimeError(f"`differentiable` does not support target, max_grad_norm, {', '.join(per_group)}")
        self.defaults.update(per_group, target=target, max_grad_norm=max_grad_norm, seed=seed)
        for group in self.param_groups:
            for name, value in per_group.items():
                group.setdefault(name, value)
            _check(group)
        self._step_supports_amp_scaling = not self.defaults["differentiable"]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name in ("master_weights", "ema_decay", "state_bits", "stochastic_rounding"):
                group.setdefault(name, self.defaults.get(name))
        self._step_supports_amp_scaling = not self.defaults["differentiable"]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        _check(self.param_groups[-1])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this class or of torch's. torch casts state to the parameters' dtype; what is of
        another one here is kept as it was saved."""
        super().load_state_dict(state_dict)
        saved_ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for group in self.param_groups:
            for param, saved_id in zip(group["params"], saved_ids, strict=False):
                saved = state_dict["state"].get(saved_id, {})
                full = _FULL_PRECISION if group["master_weights"] or group["state_bits"] == 32 else ("ema",)
                kept = {key: saved[key] for key in _IN_8_BITS if key in saved}
                if param.dtype in _HALF:
                    kept |= {key: saved[key].float() for key in full if key in saved}
                for key, value in kept.items():
                    self.state[param][key] = value.to(param.device, copy=True)

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
        for index, (group, lists, has_complex) in enumerate(work):
            seed = (self.defaults["seed"] + index) % 2**63 if group["stochastic_rounding"] else None
            self._step_group(group, lists, has_complex, scale, found_inf, clip, seed)
        return loss

    def _lists(self, group: dict[str, Any]) -> tuple[Lists, bool]:
        columns: tuple[list[Tensor], ...] = ([], [], [], [], [], [])
        scales: tuple[list[Tensor], ...] = ([], [])
        has_complex: bool | None = False
        if group["state_bits"] == 8:
            self._gather_8_bits(group, columns, scales)
        else:
            if group["master_weights"] or group["state_bits"] == 32:
                self._keep_full_precision(group)
            has_complex = self._init_group(group, *columns)
        params = columns[0]
        masters = [self._master(p) for p in params] if group["master_weights"] else ()
        emas = [self._ema(p) for p in params] if group["ema_decay"] is not None else ()
        return Lists(*columns, masters, emas, *scales), bool(has_complex)

    def _gather_8_bits(
        self, group: dict[str, Any], columns: tuple[list[Tensor], ...], scales: tuple[list[Tensor], ...]
    ) -> None:
        """What torch's _init_group does; moments that were kept otherwise are encoded."""
        params, grads, exp_avgs, exp_avg_sqs, _, steps = columns
        for p in group["params"]:
            if p.grad is None:
                continue
            if p.grad.is_sparse:
                raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")
            if p.dtype not in (torch.float32, *_HALF):
                raise TypeError(f"state_bits=8 is for parameters of fp32, bf16 and fp16, not of {p.dtype}")
            state = self.state[p]
            if "step" not in state:
                state["step"] = _no_steps(p, group)
            for moment, signed in (("exp_avg", True), ("exp_avg_sq", False)):
                if moment in state:
                    found = blockwise.encoded(state.pop(moment), signed)
                elif f"{moment}_codes" not in state:
                    found = blockwise.zeros(p, signed)
                else:
                    continue
                state[f"{moment}_codes"], state[f"{moment}_scales"] = found
            named = zip((exp_avgs, scales[0], exp_avg_sqs, scales[1]), _IN_8_BITS, strict=True)
            for column, key in named:
                column.append(state[key])
            params.append(p), grads.append(p.grad), steps.append(state["step"])

    def _keep_full_precision(self, group: dict[str, Any]) -> None:
        """Make the state that torch would make, or has made, in half precision."""
        for p in group["params"]:
            if p.grad is None or p.dtype not in _HALF:
                continue
            state = self.state[p]
            if not state:
                state["step"] = _no_steps(p, group)
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
        seed: int | None,
    ) -> None:
        names = "amsgrad lr weight_decay eps maximize foreach capturable differentiable fused decoupled_weight_decay"
        options = {name: group[name] for name in names.split()}
        options["beta1"], options["beta2"] = group["betas"]
        if scale is not None or found_inf is not None:
            options.update(foreach=False, fused=True)  # the only form of torch's that takes them
        options.update(has_complex=has_complex, grad_scale=scale, found_inf=found_inf)
        wide, target = group["state_bits"] == 32, self.defaults.get("target")
        dispatch.step(lists, options, clip, group["ema_decay"], target, wide=wide, seed=seed)

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


def _check(group: dict[str, Any]) -> None:
    bits = group.get("state_bits")
    if bits not in _STATE_BITS:
        raise ValueError(f"Invalid state_bits value: {bits}; give 8, 32, or None for moments in the parameters' dtype")
    if bits == 8 and group["amsgrad"]:
        raise ValueError("state_bits=8 does not support amsgrad; leave one of them")
    if group.get("stochastic_rounding") and group.get("master_weights"):
        raise ValueError("stochastic_rounding is for parameters without master_weights; leave one of them")


def _no_steps(p: Tensor, group: dict[str, Any]) -> Tensor:
    return torch.zeros((), dtype=torch.float32, device=p.device if group["capturable"] or group["fused"] else "cpu")


class Adam(_Extended):
    """torch.optim.Adam (Kingma & Ba 2015), and keyword-only:

    target: run on this target by name (accelops.use).
    master_weights: step fp32 copies of bf16 and fp16 parameters (state key "master"), with fp32 moments, and round them
        into the parameters.
    max_grad_norm: clip the norm of all gradients together.
    ema_decay: keep an average of the weights, ema = ema_decay * ema + (1 - ema_decay) * weight (state key "ema", fp32 for
        half precision), that starts at the first step's weights; see `averaged`.
    state_bits: 32 keeps the moments of bf16 and fp16 parameters in fp32; 8 keeps those of all in blocks of 8 bits
        (Dettmers et al. 2022; state keys "exp_avg_codes", "exp_avg_scales" and so on), without amsgrad. torch.optim.Adam
        does not read 8 bits; the way back, its moments are encoded at the next step.
    stochastic_rounding: round bf16 parameters up or down so that the mean is exact, in the place of masters. The same
        `seed`, parameters and steps give the same roundings, on every replica and device.
    On the CPU, state_bits=8 and stochastic_rounding are passes of torch's ops (target "aten"), right and not fast.
    master_weights, ema_decay, state_bits and stochastic_rounding may differ between param groups. Raises as
    torch.optim.Adam, and ValueError for what is out of range or does not go together.
    """


class AdamW(_Extended, torch.optim.AdamW):
    """torch.optim.AdamW (Loshchilov & Hutter 2019), with the keywords of accelops.optim.Adam."""
