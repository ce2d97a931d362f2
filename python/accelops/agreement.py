"""Do training steps with accelops stay within torch's own error? Judged step by step, from the same weights.

Two correct fp32 trainings drift apart: rounding differs, and training amplifies it (on the demo's network torch's own two
memory formats are 1e-2 apart in loss after 50 steps). So curves prove little. Here accelops trains, and at each step torch
(as written and at its best) and an fp64 copy compute the same step from the very weights and Adam state that accelops had.
The contract is the one of every op: error against fp64 at most twice what torch makes of the same quantity in these steps, or
ULPS units in the last place where torch is nearly exact. It holds for the loss, each parameter's gradient, and Adam's update.
torch's largest error over the steps counts, not that of the same step: where rounding turns a ReLU or the place of a maximum
the other way, gradients are 100 times further from fp64, and this meets correct kernels in different steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACTOR = 2.0
ULPS = 4
EPS = torch.finfo(torch.float32).eps
# By kind and name, for each step: accelops' error and the larger of torch's.
Errors = dict[tuple[str, str], list[tuple[float, float]]]


@dataclass(frozen=True)
class Worst:
    """What came nearest to its bound (or passed it): errors against fp64, relative to the fp64 value's norm."""

    step: int
    what: str
    accelops: float
    torch: float
    bound: float

    @property
    def share(self) -> float:
        """Of the bound; above 1 the contract is broken."""
        return self.accelops / self.bound


@dataclass(frozen=True)
class Agreement:
    """`worst` for the loss, the gradients and the update, over all `steps`."""

    steps: int
    worst: dict[str, Worst]

    @property
    def agree(self) -> bool:
        return all(worst.share <= 1 for worst in self.worst.values())


@dataclass(frozen=True)
class Script:
    """One way of training: the model as the script makes it of a plain one, its Adam, its input, and what is in force."""

    model: Callable[[nn.Module], nn.Module]
    adam: dict[str, bool]
    memory_format: torch.memory_format
    context: Callable[[], AbstractContextManager[object]]


def check(
    plain: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    lr: float,
    ours: Script,
    torchs: tuple[Script, ...],
    progress: Callable[[int], None] = lambda steps: None,
) -> Agreement:
    """Train a copy of `plain` by the script `ours` on `batches`, comparing each step with `torchs` and fp64."""
    trained = _Trainee(ours, plain, lr)
    others = [_Trainee(script, plain, lr) for script in torchs]
    exact = _Trainee(torchs[0], copy.deepcopy(plain).double(), lr)
    errors: Errors = {}
    steps = 0
    for steps, (images, labels) in enumerate(batches, 1):  # counted for after the loop
        for other in (*others, exact):
            other.follow(trained)
        truth = exact.differentiate(images.double(), labels)
        mine = trained.differentiate(images, labels)
        theirs = [other.differentiate(images, labels) for other in others]
        loss = {"loss": truth.pop("loss")}
        _measure(errors, "loss", loss, mine, theirs)
        _measure(errors, "gradients", truth, mine, theirs)
        for other in (*others, exact):
            other.take_gradients(trained)
        updated, mine, *theirs = (trainee.update() for trainee in (exact, trained, *others))
        _measure(errors, "update", updated, mine, theirs)
        progress(steps)
    return Agreement(steps, _worst(errors))


def _measure(
    errors: Errors, kind: str, exact: dict[str, Tensor], mine: dict[str, Tensor], theirs: list[dict[str, Tensor]]
) -> None:
    """Append a step's errors by the norm over each tensor; infinite where they are NaN."""
    for name, truth in exact.items():
        scale = max(truth.norm().item(), torch.finfo(torch.float32).tiny)
        off = ((values[name].to(truth) - truth).norm().item() / scale for values in (mine, *theirs))
        error, *torchs = (value if value == value else inf for value in off)
        errors.setdefault((kind, name), []).append((error, max(torchs)))


def _worst(errors: Errors) -> dict[str, Worst]:
    worst: dict[str, Worst] = {}
    for (kind, name), pairs in errors.items():
        step, (error, _) = max(enumerate(pairs, 1), key=lambda numbered: numbered[1][0])
        torchs = max(torch_error for _, torch_error in pairs)
        found = Worst(step, name, error, torchs, max(FACTOR * torchs, ULPS * EPS))
        if kind not in worst or found.share > worst[kind].share:
            worst[kind] = found
    return worst


class _Trainee:
    """A script in training, whose parameters are met in the order of the plain model's state dict."""

    def __init__(self, script: Script, plain: nn.Module, lr: float) -> None:
        self.script = script
        self.model = script.model(copy.deepcopy(plain)).train()
        self.parameters = dict(self.model.named_parameters())
        self.adam = torch.optim.Adam(self.model.parameters(), lr=lr, **script.adam)

    def follow(self, leader: _Trainee) -> None:
        """Take over the leader's weights and Adam state, in this one's own dtype and memory format."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(leader.parameters[name])
                known = leader.adam.state.get(leader.parameters[name], {})
                state = self.adam.state[parameter]
                for key, value in known.items():
                    own = state.setdefault(key, value.clone() if key == "step" else torch.zeros_like(parameter))
                    own.copy_(value)

    def differentiate(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss and each parameter's gradient."""
        self.adam.zero_grad()
        with self.script.context():
            loss = F.cross_entropy(self.model(images.to(memory_format=self.script.memory_format)), labels)
            loss.backward()
        return {"loss": loss.detach(), **{name: p.grad.clone() for name, p in self.parameters.items()}}

    def take_gradients(self, leader: _Trainee) -> None:
        for name, parameter in self.parameters.items():
            parameter.grad.copy_(leader.parameters[name].grad)

    def update(self) -> dict[str, Tensor]:
        """Step, and give what the parameters have become."""
        with self.script.context():
            self.adam.step()
        return {name: parameter.detach() for name, parameter in self.parameters.items()}
