"""What an Adam step works on: the lists of tensors, and the hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from accelops.targets.cpu import native

from .description import Description, describe, family, read
from .spec import AdamSpec


@dataclass(frozen=True)
class Lists:
    """The tensors of a step, each list empty or as long as `params`; named as in torch.optim.adam.adam. `masters` and
    `emas` are copies and averages of the parameters at full precision (fp32, for fp64 and complex parameters their own).
    With `exp_avg_scales` and `exp_avg_sq_scales` the moments are codes in 8 bits (blockwise.py).
    """

    params: Sequence[Tensor]
    grads: Sequence[Tensor]
    exp_avgs: Sequence[Tensor]
    exp_avg_sqs: Sequence[Tensor]
    max_exp_avg_sqs: Sequence[Tensor]
    state_steps: Sequence[Tensor]
    masters: Sequence[Tensor] = ()
    emas: Sequence[Tensor] = ()
    exp_avg_scales: Sequence[Tensor] = ()
    exp_avg_sq_scales: Sequence[Tensor] = ()

    @cached_property
    def table(self) -> Any:
        """The addresses for native kernels, valid as long as no tensor gets new memory; a Description where they cannot
        read the lists at all."""
        if native is None or self.exp_avg_scales or (self.params and not self.params[0].is_cpu):
            return self.description
        return native.AdamTable(
            self.params,
            self.grads,
            self.exp_avgs,
            self.exp_avg_sqs,
            self.max_exp_avg_sqs,
            self.state_steps,
            self.masters,
            self.emas,
        )

    @cached_property
    def description(self) -> Description:
        """Valid as long as no tensor gets new memory."""
        return describe(self._columns, self._read[0])

    @property
    def addresses(self) -> dict[str, bytes]:
        """Of each list, 8 bytes a tensor; valid as long as no tensor gets new memory."""
        return dict(zip((f.name for f in fields(self)), self._read[1], strict=True))

    @cached_property
    def _read(self) -> tuple[bytes | None, tuple[bytes, ...]]:
        return read(self._columns)

    @property
    def _columns(self) -> list[Sequence[Tensor]]:
        return [getattr(self, f.name) for f in fields(self)]

    def spec(self, stochastic: bool = False) -> AdamSpec:
        """The Spec of the step, with stochastic rounding or without. Raises ValueError where `table.why` says that no kernel
        can read the lists."""
        table = self.table
        if table.why:
            raise ValueError(f"adam: {table.why}")
        parts = 2 if table.dtype.startswith("complex") else 1  # the table counts real numbers
        return AdamSpec(
            numel=table.numel // parts,
            tensors=len(table),
            dtype=table.dtype,
            state_dtype=table.state_dtype,
            amsgrad=bool(self.max_exp_avg_sqs),
            master=bool(self.masters),
            ema=bool(self.emas),
            stochastic=stochastic,
            device=table.device.type if isinstance(table, Description) else "cpu",
        )

    def parts(self) -> list[Lists]:
        """These lists, cut into such as one launch can step: on the CPU for each dtype of the parameters, elsewhere for
        each device, with only fp64 apart."""
        if not self.table.mixed:
            return [self]
        together: dict[Any, list[int]] = {}
        for k, param in enumerate(self.params):
            key = param.dtype if param.is_cpu else family((param.dtype, param.shape, param.device))
            together.setdefault(key, []).append(k)
        return [Lists(*([c[k] for k in rows] if c else () for c in self._columns)) for rows in together.values()]

    def in_one_order(self) -> tuple[Lists, list[tuple[Tensor, Tensor]]]:
        """The lists with all tensors of a parameter dense and in the same order, through copies where they are not (a
        contiguous gradient of a channels_last parameter, a parameter with gaps), and (original, copy) of those written."""
        ordered = {f.name: list(getattr(self, f.name)) for f in fields(self)}
        copied: list[tuple[Tensor, Tensor]] = []
        for k in self.table.irregular:
            param = self.params[k].detach()
            order = torch.empty_like(param).stride()  # of a parameter with gaps or overlaps: dense
            for name, tensors in ordered.items():
                if name in _OF_NO_ORDER or not tensors or tensors[k].stride() == order:
                    continue
                original = tensors[k].detach()
                tensors[k] = original.new_empty_strided(param.shape, order).copy_(original)
                if name != "grads":
                    copied.append((original, tensors[k]))
        return replace(self, **ordered), copied

    def written(self) -> list[Tensor]:
        """All that a step changes, but the step counts."""
        states = (self.exp_avgs, self.exp_avg_sqs, self.max_exp_avg_sqs, self.exp_avg_scales, self.exp_avg_sq_scales)
        return [*self.params, *chain.from_iterable(states), *self.masters, *self.emas]


_OF_NO_ORDER = ("state_steps", "exp_avg_scales", "exp_avg_sq_scales")


@dataclass(frozen=True)
class Hyper:
    """Hyperparameters of a step; gradients are multiplied by `grad_factor` (the clip coefficient) first, and divided by
    `grad_scale` (the loss scale). Where `found_inf` is not 0 the step is skipped. With a `seed`, 63 bits, bf16 parameters
    are rounded stochastically (rounding.py). Native kernels take numbers, and none of the last three."""

    lr: float | Tensor
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    decoupled: bool
    maximize: bool = False
    grad_factor: float | Tensor = 1.0
    ema_decay: float = 0.0
    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None
    seed: int | None = None
