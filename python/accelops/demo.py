"""The demo: one CNN trained on real images three times from the same seed, by torch and by accelops.

The scripts: torch as most are written (contiguous, default Adam), torch at its best (channels_last, fused=True), and the
first one plus two lines: model = accelops.nn.accelerate(model) and accelops.enable(). They take turns, an epoch each, so
that a noisy machine is fair to all; memory is kept in the process for all three. accelops.agreement judges the first steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from accelops import data
from accelops.agreement import FACTOR, ULPS, Agreement, Script, check
from accelops.bench.run import evidence
from accelops.dispatch import reroute
from accelops.dispatch.explain import Explanation
from accelops.dispatch.select import observed, select
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.kernels.spec import Spec
from accelops.nn import accelerate
from accelops.targets.cpu.memory import keep_memory

PHASES = ("data", "forward", "backward", "optimizer")
ACCURACY_POINTS = 1.0
SCRIPTS = {
    "torch": Script(lambda model: model, {}, torch.contiguous_format, nullcontext),
    "torch_best": Script(
        lambda model: model.to(memory_format=torch.channels_last), {"fused": True}, torch.channels_last, nullcontext
    ),
    "accelops": Script(accelerate, {}, torch.contiguous_format, reroute.enabled),
}
TITLES = {
    "torch": "torch, as most scripts are written",
    "torch_best": "torch at its best",
    "accelops": "the first script and two lines of accelops",
}
Advance = Callable[[str, int, float | None], None]


@dataclass(frozen=True)
class Options:
    """`checked_steps`: how many of the first steps are compared with fp64."""

    data: str = "digits"
    epochs: int = 8
    batch_size: int = 64
    lr: float = 1e-3
    seed: int = 0
    checked_steps: int = 50


def network() -> nn.Sequential:
    """Shape: (N, 3, 32, 32) -> (N, 10)."""
    layers: list[nn.Module] = []
    for channels, wider in ((3, 64), (64, 128), (128, 256)):
        layers += [nn.Conv2d(channels, wider, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 4 * 4, 256), nn.ReLU(), nn.Linear(256, 10))


@dataclass
class Training:
    """One script at work; `seconds` has, for each epoch, the time of each phase."""

    script: Script
    model: nn.Module
    adam: torch.optim.Adam
    schedule: torch.optim.lr_scheduler.StepLR
    losses: list[float] = field(default_factory=list)
    seconds: list[dict[str, float]] = field(default_factory=list)
    accuracy: float = 0.0

    @classmethod
    def begin(cls, script: Script, options: Options) -> Training:
        torch.manual_seed(options.seed)
        model = script.model(network())
        adam = torch.optim.Adam(model.parameters(), lr=options.lr, **script.adam)
        step_size = max(1, (options.epochs + 2) // 3)
        return cls(script, model, adam, torch.optim.lr_scheduler.StepLR(adam, step_size, gamma=0.3))

    def epoch(self, loader: DataLoader[tuple[Tensor, Tensor]], advance: Callable[[float], None]) -> None:
        self.model.train()
        seconds = dict.fromkeys(PHASES, 0.0)
        batches = iter(loader)
        with self.script.context():
            while True:
                times = [perf_counter()]
                batch = next(batches, None)
                if batch is None:
                    break
                images = batch[0].to(memory_format=self.script.memory_format)
                times.append(perf_counter())
                loss = F.cross_entropy(self.model(images), batch[1])
                times.append(perf_counter())
                loss.backward()
                times.append(perf_counter())
                self.adam.step()
                self.adam.zero_grad()
                times.append(perf_counter())
                for phase, begin, end in zip(PHASES, times, times[1:], strict=False):
                    seconds[phase] += end - begin
                self.losses.append(loss.item())
                advance(self.losses[-1])
        self.schedule.step()
        self.seconds.append(seconds)

    def test(self, images: Tensor, labels: Tensor) -> None:
        """Sets `accuracy`, in percent."""
        self.model.eval()
        right = 0
        with self.script.context(), torch.inference_mode():
            for x, y in zip(images.split(256), labels.split(256), strict=True):
                right += int((self.model(x.to(memory_format=self.script.memory_format)).argmax(1) == y).sum())
        self.accuracy = 100 * right / len(labels)

    def milliseconds(self) -> dict[str, float]:
        """Of each phase in a step: the median epoch."""
        steps = len(self.losses) / len(self.seconds)
        return {phase: 1e3 * median(epoch[phase] for epoch in self.seconds) / steps for phase in PHASES}


@dataclass(frozen=True)
class Outcome:
    options: Options
    trainings: dict[str, Training]
    agreement: Agreement
    explanation: Explanation
    memory_kept: bool

    @property
    def accuracies_agree(self) -> bool:
        ours, torchs = self.trainings["accelops"].accuracy, self.trainings["torch"].accuracy
        return abs(ours - torchs) <= ACCURACY_POINTS

    @property
    def losses_agree(self) -> bool:
        return self.agreement.agree and self.accuracies_agree

    def drift(self, name: str) -> float:
        """Largest difference of a script's losses from those of torch as written, over the checked steps. Not judged: from
        the first different rounding on it grows with every step, between torch's own two scripts as well."""
        first = self.agreement.steps
        theirs, ours = self.trainings["torch"].losses[:first], self.trainings[name].losses[:first]
        return max(abs(t - o) for t, o in zip(theirs, ours, strict=True))

    def speedup(self, over: str) -> float:
        """Median over the epochs of the ratio of their whole times, every phase included; the first epoch, in which torch
        and accelops prepare their kernels, counts only where it is the only one."""
        theirs, ours = ([sum(epoch.values()) for epoch in self.trainings[name].seconds] for name in (over, "accelops"))
        ratios = [t / o for t, o in zip(theirs, ours, strict=True)]
        return median(ratios[1:] or ratios)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the three figures that matter come last."""
        return {
            "options": asdict(self.options),
            "evidence": evidence(),
            "memory_kept": self.memory_kept,
            "scripts": {
                name: {
                    "losses": t.losses,
                    "accuracy_percent": t.accuracy,
                    "milliseconds_per_step": t.milliseconds(),
                }
                for name, t in self.trainings.items()
            },
            "agreement": {
                "steps": self.agreement.steps,
                "contract": f"each step from the same weights: error against fp64 at most {FACTOR:g}x torch's largest in these steps, or {ULPS} ulps",
                "worst": {kind: {**asdict(w), "share_of_bound": w.share} for kind, w in self.agreement.worst.items()},
                "accuracies_agree": self.accuracies_agree,
            },
            "drift": {"accelops": self.drift("accelops"), "torch_best": self.drift("torch_best")},
            "explain": self.explanation.to_dict(),
            "losses_agree": self.losses_agree,
            "speedup": self.speedup("torch"),
            "speedup_vs_best": self.speedup("torch_best"),
        }


def quick(options: Options) -> Options:
    """The same in a few seconds: two epochs, ten compared steps."""
    return replace(options, epochs=2, checked_steps=10)


def check_batch(options: Options, images: data.Images) -> None:
    """Raises ValueError where a batch is larger than the training images."""
    if options.batch_size > len(images.train[1]):
        raise ValueError(
            f"batch_size={options.batch_size} exceeds the {len(images.train[1])} training images; take fewer"
        )


def run(options: Options, images: data.Images, advance: Advance = lambda name, total, loss: None) -> Outcome:
    """Compare, train and test. `advance(name, steps in all, loss)` follows each step: "check" (loss None) or a script's."""
    check_batch(options, images)
    steps = len(images.train[1]) // options.batch_size
    kept = keep_memory(True)
    try:
        agreement = _check(options, images, advance)
        trainings = {name: Training.begin(script, options) for name, script in SCRIPTS.items()}
        explanation = _train(options, images, trainings, lambda name, loss: advance(name, options.epochs * steps, loss))
    finally:
        keep_memory(False)
    for training in trainings.values():
        training.test(*images.test)
    return Outcome(options, trainings, agreement, explanation, kept)


def _check(options: Options, images: data.Images, advance: Advance) -> Agreement:
    torch.manual_seed(options.seed)
    first = islice(_endless(options, images), options.checked_steps)
    torchs = (SCRIPTS["torch"], SCRIPTS["torch_best"])
    return check(
        network(),
        first,
        options.lr,
        SCRIPTS["accelops"],
        torchs,
        lambda _: advance("check", options.checked_steps, None),
    )


def _endless(options: Options, images: data.Images) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        yield from data.batches(images, options.batch_size, _epoch_seed(options, epoch))
        epoch += 1


def _epoch_seed(options: Options, epoch: int) -> int:
    return 1000 * options.seed + epoch


def _train(
    options: Options, images: data.Images, trainings: dict[str, Training], advance: Callable[[str, float], None]
) -> Explanation:
    """An epoch of each in turn, the order rotating; what dispatch selected in the first epoch of accelops."""
    order = list(trainings)

    def turn(epoch: int) -> None:
        for name in order:
            loader = data.batches(images, options.batch_size, _epoch_seed(options, epoch))
            trainings[name].epoch(loader, lambda loss, name=name: advance(name, loss))
        order.append(order.pop(0))

    with observed() as seen:  # torch's scripts run with nothing enabled, so only accelops asks dispatch
        turn(0)
    for epoch in range(1, options.epochs):
        turn(epoch)
    return Explanation(tuple(select(spec) for spec in sorted(seen, key=_in_order)))


def _in_order(spec: Spec) -> tuple[str, int, str]:
    """Layer after layer, forward first."""
    if isinstance(spec, ConvSpec):
        return spec.op, spec.input[1], str(DIRECTIONS.index(spec.direction))
    return spec.op, 0, spec.to_json()


def show(outcome: Outcome, console: Console) -> None:
    """Print losses, accuracies, times, speed-ups, the agreement and what ran."""
    table = Table("script", "loss, first / last", "accuracy", *(f"{phase} ms" for phase in PHASES), "step ms")
    for name, training in outcome.trainings.items():
        phases = training.milliseconds()
        losses = f"{training.losses[0]:.4f} / {training.losses[-1]:.4f}"
        times = [f"{value:.1f}" for value in (*phases.values(), sum(phases.values()))]
        table.add_row(TITLES[name], losses, f"{training.accuracy:.1f} %", *times)
    console.print(table)
    agreement = outcome.agreement
    console.print(
        f"The first {agreement.steps} steps, each repeated in fp64 from the same weights; a bound is {FACTOR:g}x the error of "
        f"torch's own fp32, or {ULPS} ulps:"
    )
    for kind, worst in agreement.worst.items():
        console.print(
            f"  {kind}: at most {100 * worst.share:.0f} % of its bound (step {worst.step}, {worst.what}: error "
            f"{worst.accelops:.1e}, torch's {worst.torch:.1e})"
        )
    console.print(
        f"Losses of those steps differ from torch as written by at most {outcome.drift('accelops'):.1e} with accelops and "
        f"by {outcome.drift('torch_best'):.1e} with torch at its best."
    )
    console.print(f"Accuracies within {ACCURACY_POINTS:g} point: {'yes' if outcome.accuracies_agree else 'NO'}")
    verdict = "[green]The results agree.[/]" if outcome.losses_agree else "[red]The results DO NOT agree.[/]"
    console.print(f"{verdict}")
    console.print(_what_ran(outcome.explanation))
    kept = "was kept in the process for all three" if outcome.memory_kept else "went back to the system for all three"
    console.print(f"Epochs took turns; memory {kept}.")
    console.print(
        f"[bold]accelops is {outcome.speedup('torch'):.2f}x as fast as torch as written, "
        f"{outcome.speedup('torch_best'):.2f}x as fast as torch at its best.[/]"
    )


def _what_ran(explanation: Explanation) -> Table:
    table = Table("op", "problem", "ran", "because", title="what accelops.explain says ran with accelops")
    for selection in explanation.selections:
        spec = selection.spec
        if isinstance(spec, ConvSpec):
            problem = f"{spec.direction} {spec.input} * {spec.weight} {spec.memory_format}"
        else:
            problem = ", ".join(f"{key}={value}" for key, value in asdict(spec).items())  # type: ignore[call-overload]
        ran = f"{selection.target} {selection.config}"
        table.add_row(spec.op, problem, escape(ran), escape(f"{selection.why} ({selection.source})"))
    return table
