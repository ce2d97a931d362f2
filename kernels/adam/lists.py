"""What an Adam step works on: the lists of tensors, and the hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from accelops.targets.cpu import native

from .spec import AdamSpec


@dataclass(frozen=True)
class _Unreadable:
    """In the place of a native table where there is no native extension."""

    why: str = "the native extension does not load"
    mixed: bool = False
    irregular: tuple[int, ...] = ()


@dataclass(frozen=True)
class Lists:
    """The tensors of a step, each list empty or as long as `params`; named as in torch.optim.adam.adam. `masters` and
    `emas` are copies and averages of the parameters at full precision (fp32, for fp64 and complex parameters their own).
    """

    params: Sequence[Tensor]
    grads: Sequence[Tensor]
    exp_avgs: Sequence[Tensor]
    exp_avg_sqs: Sequence[Tensor]
    max_exp_avg_sqs: Sequence[Tensor]
    state_steps: Sequence[Tensor]
    masters: Sequence[Tensor] = ()
    emas: Sequence[Tensor] = ()

    @cached_property
    def table(self) -> Any:
        """The addresses for native kernels; valid as long as no tensor gets new memory."""
        if native is None:
            return _Unreadable()
        return native.AdamTable(*(getattr(self, f.name) for f in fields(self)))

    def spec(self) -> AdamSpec:
        """The Spec of the step. Raises ValueError where `table.why` says that native kernels cannot read the lists."""
        if self.table.why:
            raise ValueError(f"adam: {self.table.why}")
        parts = 2 if self.table.dtype.startswith("complex") else 1  # the table counts real numbers
        return AdamSpec(
            numel=self.table.numel // parts,
            tensors=len(self.table),
            dtype=self.table.dtype,
            state_dtype=self.table.state_dtype,
            amsgrad=bool(self.max_exp_avg_sqs),
            master=bool(self.masters),
            ema=bool(self.emas),
        )

    def parts(self) -> list[Lists]:
        """These lists, cut into one for each dtype of the parameters."""
        if not self.table.mixed:
            return [self]
        of_dtype: dict[torch.dtype, list[int]] = {}
        for k, param in enumerate(self.params):
            of_dtype.setdefault(param.dtype, []).append(k)
        columns = [getattr(self, f.name) for f in fields(self)]
        return [Lists(*([c[k] for k in rows] if c else () for c in columns)) for rows in of_dtype.values()]

    def in_one_order(self) -> tuple[Lists, list[tuple[Tensor, Tensor]]]:
        """The lists with all tensors of a parameter dense and in the same order, through copies where they are not (a
        contiguous gradient of a channels_last parameter, a parameter with gaps), and (original, copy) of those written."""
        ordered = {f.name: list(getattr(self, f.name)) for f in fields(self)}
        copied: list[tuple[Tensor, Tensor]] = []
        for k in self.table.irregular:
            param = self.params[k].detach()
            order = torch.empty_like(param).stride()  # of a parameter with gaps or overlaps: dense
            for name, tensors in ordered.items():
                if name == "state_steps" or not tensors or tensors[k].stride() == order:
                    continue
                original = tensors[k].detach()
                tensors[k] = torch.empty_strided(param.shape, order, dtype=original.dtype).copy_(original)
                if name != "grads":
                    copied.append((original, tensors[k]))
        return replace(self, **ordered), copied

    def written(self) -> list[Tensor]:
        """All that a step changes, but the step counts."""
        return [*self.params, *self.exp_avgs, *self.exp_avg_sqs, *self.max_exp_avg_sqs, *self.masters, *self.emas]


@dataclass(frozen=True)
class Hyper:
    """Hyperparameters of a step; gradients are multiplied by `grad_factor` (clip coefficient / loss scale) first."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    decoupled: bool
    maximize: bool = False
    grad_factor: float = 1.0
    ema_decay: float = 0.0
