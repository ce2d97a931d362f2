"""What a deployed model costs and loses, layer by layer. Cycles, bytes moved, seconds and frames/s are *modelled* (by
arithmetic, targets/fpga/model.py), those of the board's launches alone: the host's work and its transfers are not in them,
but counted beside them. Errors and accuracies are computed, with the integers that a board must give to the bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor
from torch.fx import Node

from .packing import ENGINE, Form, Packed
from .program import OnHost, Sizes
from .reference import Reference

if TYPE_CHECKING:
    from .module import Deployed


@dataclass(frozen=True)
class Row:
    """A layer. `cycles`, `bytes` and `seconds` of all its launches; `dsp_efficiency`: the part of the array's multipliers
    times cycles that does the layer's own products, padding not counted. `error`: root mean square of the difference from
    fp32 over that of the fp32 result, everything before it quantised too. None where it runs on the host."""

    name: str
    kind: str
    where: str
    sizes: tuple[int, ...]
    launches: int = 0
    cycles: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    dsp_efficiency: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Crossings:
    """Images that go up to the board and results that come down, and their bytes."""

    uploads: int
    upload_bytes: int
    downloads: int
    download_bytes: int


@dataclass(frozen=True)
class Accuracy:
    """Percent of `images` whose label is the largest output."""

    images: int
    fp32: float
    int8: float

    @property
    def change(self) -> float:
        """In points."""
        return self.int8 - self.fp32


@dataclass(frozen=True)
class Report:
    """Of a run of `batch` images. `host_operators`: what else the host computes, by name."""

    board: str
    batch: int
    layers: tuple[Row, ...]
    host_operators: dict[str, int]
    crossings: Crossings
    accuracy: Accuracy | None

    @property
    def seconds(self) -> float:
        """Of all launches: modelled."""
        return sum(row.seconds or 0.0 for row in self.layers)

    @property
    def frames_per_second(self) -> float:
        """Modelled, of the launches."""
        return self.batch / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        accuracy = None if self.accuracy is None else {**asdict(self.accuracy), "change": self.accuracy.change}
        return {
            "evidence": "modelled",
            "board": self.board,
            "batch": self.batch,
            "layers": [asdict(row) for row in self.layers],
            "host_operators": self.host_operators,
            "crossings": asdict(self.crossings),
            "seconds": self.seconds,
            "frames_per_second": self.frames_per_second,
            "accuracy": accuracy,
        }

    def __str__(self) -> str:
        console = Console(width=150)
        with console.capture() as captured:
            self.show(console)
        return captured.get()

    def show(self, console: Console) -> None:
        columns = ("layer", "result", "launches", "cycles", "bytes", "latency ms", "DSP", "error", "runs")
        table = Table(*columns, title=f"{self.board}, {self.batch} images: modelled, not measured")
        for row in self.layers:
            there = row.cycles is not None
            table.add_row(
                escape(row.name),
                "x".join(map(str, row.sizes)),
                *((str(row.launches), f"{row.cycles:,}", f"{row.bytes:,}") if there else ("-",) * 3),
                *((f"{1e3 * row.seconds:.3f}", f"{100 * row.dsp_efficiency:.0f} %") if there else ("-",) * 2),
                "-" if row.error is None else f"{100 * row.error:.1f} %",
                row.where,
            )
        console.print(table)
        crossed = self.crossings
        others = ", ".join(f"{count} {name}" for name, count in self.host_operators.items())
        console.print(f"on the host, in fp32: {escape(others) or 'nothing'}", highlight=False)
        console.print(
            f"{crossed.uploads} uploads ({crossed.upload_bytes:,} bytes), {crossed.downloads} downloads "
            f"({crossed.download_bytes:,} bytes)",
            highlight=False,
        )
        if self.accuracy is not None:
            a = self.accuracy
            console.print(
                f"accuracy on {a.images} images: fp32 {a.fp32:.2f} %, int8 {a.int8:.2f} % ({a.change:+.2f} points)"
            )
        console.print(
            f"[bold]{self.frames_per_second:,.1f} frames/s modelled[/] for the board's launches, without the host's work"
        )


class _Recording(Reference):
    """The integer reference, noting what would cross and what would be launched."""

    def __init__(self, deployed: Deployed) -> None:
        self.board = deployed.board
        self.up: list[int] = []
        self.down: list[int] = []
        self.inputs: dict[Packed, Sizes] = {}

    def place(self, image: Tensor, form: Form) -> Tensor:
        n, _, h, w = image.shape
        self.up.append(n * form.blocks * h * w * self.board.sizes[ENGINE]["outputs"])
        return super().place(image, form)

    def convolve(self, packed: Packed, x: Tensor, sizes: Sizes) -> Tensor:
        self.inputs[packed] = sizes
        return super().convolve(packed, x, sizes)

    def fetch(self, packed: Packed, y: Tensor, sizes: Sizes) -> Tensor:
        n, _, p, q = sizes
        self.down.append(n * packed.result.blocks * p * q * self.board.sizes[ENGINE]["outputs"] * y.element_size())
        return super().fetch(packed, y, sizes)


def reported(deployed: Deployed, evaluation: Iterable[Any] | None, batch: int | None) -> Report:
    flat = deployed.example if batch is None else tuple(_repeated(x, batch) for x in deployed.example)
    network, placement = deployed.program.network, deployed.placement
    wanted = {layer.end for layer in network.layers}
    real: dict[Node, Tensor] = {}

    def keep(node: Node, value: Any) -> None:
        if node in wanted:
            real[node] = value

    network.run(*flat, watch=keep)
    recording = _Recording(deployed)
    deployed.program.run(recording, flat)
    crossings = Crossings(len(recording.up), sum(recording.up), len(recording.down), sum(recording.down))
    errors = _errors(deployed, flat, real)
    by_layer = {packed.layer.layer: packed for packed in recording.inputs}
    rows = tuple(
        Row(layer.name, layer.kind, "host, as asked", tuple(real[layer.end].shape))
        if layer in placement.host
        else _row(by_layer[layer], recording.inputs[by_layer[layer]], tuple(real[layer.end].shape), errors)
        for layer in network.layers
    )
    first = next(x for x in flat if isinstance(x, Tensor))
    inside = {node for layer in placement.host for node in layer.nodes}
    steps = (s.node for s in deployed.program.steps if isinstance(s, OnHost) and s.node not in inside)
    operators = Counter(_operator(node) for node in steps if isinstance(node.meta.get("val"), Tensor))
    return Report(
        deployed.board.name, first.shape[0], rows, dict(operators), crossings, _accuracy(deployed, evaluation)
    )


def _row(packed: Packed, sizes: Sizes, result: tuple[int, ...], errors: dict[Packed, float]) -> Row:
    n, _, h, w = sizes
    estimate, number, array = packed.estimate(n, h, w), packed.cut.number, packed.board.sizes[ENGINE]
    seconds = number * estimate.seconds
    peak = packed.board.clock_mhz * 1e6 * array["outputs"] * array["inputs"]
    return Row(
        packed.layer.name,
        packed.layer.layer.kind,
        "board, raw sums" if packed.layer.raw else "board",
        result,
        number,
        number * estimate.cycles,
        number * estimate.bytes,
        seconds,
        packed.products(n, h, w) / (seconds * peak),
        errors[packed],
    )


def _errors(deployed: Deployed, flat: tuple[Any, ...], real: dict[Node, Tensor]) -> dict[Packed, float]:
    found: dict[Packed, float] = {}

    def compare(packed: Packed, result: Tensor) -> None:
        exact = real[packed.layer.layer.end].double()
        ours = packed.layer.real(result).double()
        ours = (
            ours[0, :, 0].t().reshape(exact.shape) if packed.layer.layer.kind == "linear" else ours.reshape(exact.shape)
        )
        size = float(exact.square().sum())
        found[packed] = (float((ours - exact).square().sum()) / size) ** 0.5 if size else 0.0

    deployed.program.run(Reference(), flat, compare)
    return found


def _accuracy(deployed: Deployed, evaluation: Iterable[Any] | None) -> Accuracy | None:
    if evaluation is None:
        return None
    images = fp32 = int8 = 0
    for *inputs, labels in evaluation:
        images += len(labels)
        fp32 += _right(deployed.original(*inputs), labels)
        int8 += _right(deployed.reference(*inputs), labels)
    if not images:
        raise ValueError("evaluation holds no images")
    return Accuracy(images, 100 * fp32 / images, 100 * int8 / images)


def _right(outputs: Any, labels: Tensor) -> int:
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != len(labels):
        raise ValueError("accuracy needs a model that returns one row of class scores (N, classes) for each label")
    return int((outputs.argmax(1) == labels).sum())


def _repeated(x: Any, batch: int) -> Any:
    """The images of `x` again and again."""
    return x[torch.arange(batch) % len(x)] if isinstance(x, Tensor) and x.dim() else x


def _operator(node: Node) -> str:
    return getattr(node.target, "overloadpacket", node.target).__name__
