"""A deployed model tried out on a board: verified to the bit, timed, and judged by its accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from torch import Tensor
from torch.export import ExportedProgram

from accelops.targets.fpga.driver import Driver

from .module import Deployed, Verification
from .report import Report

BATCH = 64  # images at a time where the model leaves it free


@dataclass(frozen=True)
class Trial:
    """`images` ran on the board at `where`. `points` of accuracy may be lost."""

    where: str
    emulated: bool
    images: int
    verification: Verification
    report: Report
    points: float

    @property
    def accurate(self) -> bool:
        return self.report.accuracy is None or self.report.accuracy.change >= -self.points

    @property
    def passed(self) -> bool:
        return self.verification.exact and self.accurate

    @property
    def seconds(self) -> float | None:
        """Measured, of the launches; None for an emulated board, whose time is its simulator's."""
        return None if self.emulated else self.verification.seconds

    def to_dict(self) -> dict[str, Any]:
        return {
            "where": self.where,
            "emulated": self.emulated,
            "images": self.images,
            "differing": self.verification.differing,
            "exact": self.verification.exact,
            "launches": self.verification.launches,
            "measured_seconds": self.seconds,
            "cycles_reported": self.verification.cycles,
            "report": self.report.to_dict(),
            "accurate": self.accurate,
            "passed": self.passed,
        }

    def show(self, console: Console) -> None:
        self.report.show(console)
        for name, count in self.verification.differing.items():
            if count:
                console.print(f"[red]{name}: {count} integers are not the reference's[/]")
        what = "an emulated board (simulated)" if self.emulated else "a board"
        verdict = "equal the reference to the bit" if self.verification.exact else "[red]ARE NOT the reference's[/]"
        launches = f"{self.verification.launches} launches at {self.where}, {what}"
        console.print(f"{self.images} images, {launches}: the integers of all layers {verdict}", highlight=False)
        if self.verification.cycles is not None:
            console.print(f"the board reports {self.verification.cycles:,} cycles for them, modelled", highlight=False)
        if self.seconds is not None:
            console.print(
                f"measured: {self.seconds:.4f} s in launches, {self.images / self.seconds:.1f} frames/s of them"
            )
        if not self.accurate:
            console.print(f"[red]int8 loses more than {self.points:g} points of accuracy[/]")


def expected_batch(program: ExportedProgram) -> int | None:
    """The number of images that the program is made for; None where that is free."""
    user = set(program.graph_signature.user_inputs)
    values = (node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in user)
    first = next(value for value in values if isinstance(value, Tensor))
    return first.shape[0] if isinstance(first.shape[0], int) else None


def batches(images: Tensor, size: int | None) -> list[Tensor]:
    """Of `size`, what is left over dropped; where it is None, of BATCH and what is left over."""
    cut = images.split(size or BATCH)
    return [batch for batch in cut if size is None or len(batch) == size]


def tried(deployed: Deployed, driver: Driver, test: tuple[Tensor, Tensor], images: int, points: float) -> Trial:
    """`images` of `test` on the board, all of them by the reference for the accuracy. Raises BoardError; ValueError where
    the model is not for such images."""
    size = expected_batch(deployed.program.network.program)
    shown = size or images
    verification = deployed.verify(driver, test[0][:shown])
    labelled = _labelled(test, size)
    report = deployed.report(evaluation=labelled, batch=shown)
    return Trial(driver.where, driver.emulated, shown, verification, report, points)


def _labelled(test: tuple[Tensor, Tensor], size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(*(batches(part, size) for part in test), strict=True)
