"""`compile`: a model becomes Deployed, a module that computes on a board what the model computes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree

from accelops.targets import fpga
from accelops.targets.fpga import boards
from accelops.targets.fpga.errors import BoardError

from .engine import OnBoard
from .graph import Network, export, network
from .packing import Packed
from .placement import Placement, placed
from .program import Program, image, program
from .ranges import checked_clip, scales
from .reference import Reference
from .report import Report, reported


@dataclass(frozen=True)
class Verification:
    """What a board computed beside the integer reference. `differing`: for each layer, how many integers of its result are
    not the reference's. `outputs` of the module. `seconds` (wall) and `cycles` of the launches; cycles, which are modelled,
    only from an emulated board, whose seconds say nothing about any board."""

    outputs: Any
    differing: dict[str, int]
    launches: int
    seconds: float
    cycles: int | None

    @property
    def exact(self) -> bool:
        return not any(self.differing.values())


class Deployed(nn.Module):
    """Takes and returns what the model does, without gradients. Runs on `accelops.targets.fpga.current()`, which must be
    a board of the type that it was compiled for; weights stay on every board it ran on, until `forget`."""

    def __init__(self, placement: Placement, steps: Program, example: tuple[Any, ...]) -> None:
        super().__init__()
        self.board = placement.board
        self.placement, self.program = placement, steps
        self.example = example
        self._engines: WeakKeyDictionary[Any, OnBoard] = WeakKeyDictionary()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raises TargetUnavailable without a board, BoardError where it fails, ValueError for inputs of other shapes."""
        return self.run(fpga.current(), *args, **kwargs)

    def run(self, driver: Any, *args: Any, **kwargs: Any) -> Any:
        """The same on the board of `driver`."""
        return self._outputs(self._on(driver, self._flat(args, kwargs)))

    def reference(self, *args: Any, **kwargs: Any) -> Any:
        """What the board must compute, to the bit, by exact arithmetic on the host."""
        return self._outputs(self.program.run(Reference(), self._flat(args, kwargs)))

    def original(self, *args: Any, **kwargs: Any) -> Any:
        """What the model computes, in fp32 on the host."""
        return self._outputs(self.program.network.run(*self._flat(args, kwargs)))

    def verify(self, driver: Any, *args: Any, **kwargs: Any) -> Verification:
        """One run on the board, every layer's result compared with the integer reference."""
        flat = self._flat(args, kwargs)
        expected: dict[Packed, Tensor] = {}
        self.program.run(Reference(), flat, expected.__setitem__)
        found: dict[str, int] = {}

        def compare(packed: Packed, result: Tensor) -> None:
            found[packed.layer.name] = int((result != expected.pop(packed)).sum())

        engine = self._engine(driver)
        before = engine.launched, engine.seconds, engine.cycles
        outputs = self._outputs(self._on(driver, flat, compare))
        cycles = None if engine.cycles is None else engine.cycles - (before[2] or 0)
        return Verification(outputs, found, engine.launched - before[0], engine.seconds - before[1], cycles)

    def report(self, evaluation: Iterable[Any] | None = None, batch: int | None = None) -> Report:
        """Per layer and in sum what a run of the example inputs (or of `batch` images like them) is modelled to cost, and
        how far quantisation moves each layer. `evaluation`: batches of (inputs, labels), for the accuracy of both; that of
        int8 is the integer reference's, which the board equals."""
        return reported(self, evaluation, batch)

    def forget(self) -> None:
        """Gives up the weights on all boards."""
        for engine in self._engines.values():
            engine.forget()
        self._engines.clear()

    def extra_repr(self) -> str:
        layers = self.placement
        return f"board={self.board.name}, layers on the board: {len(layers.layers)}, on the host: {len(layers.host)}"

    def _engine(self, driver: Any) -> OnBoard:
        if driver.board.name != self.board.name:
            raise ValueError(
                f"compiled for {self.board.name}, the board in use is a {driver.board.name}: compile for it"
            )
        if driver not in self._engines:
            self._engines[driver] = OnBoard(driver)
        return self._engines[driver]

    def _on(self, driver: Any, flat: tuple[Any, ...], watch: Any = None) -> tuple[Any, ...]:
        engine = self._engine(driver)
        try:
            return self.program.run(engine, flat, watch)
        except BoardError:
            engine.forget()
            raise

    def _flat(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        net = self.program.network
        flat, spec = pytree.tree_flatten((args, kwargs))
        if spec != net.program.call_spec.in_spec:
            raise ValueError(f"the model takes {net.program.call_spec.in_spec}, given {spec}")
        for node, value in zip(net.inputs, flat, strict=True):
            _check_input(node, value)
        return tuple(flat)

    def _outputs(self, flat: tuple[Any, ...]) -> Any:
        return pytree.tree_unflatten(list(flat), self.program.network.program.call_spec.out_spec)


def _check_input(node: Node, value: Any) -> None:
    expected = node.meta["val"]
    if not isinstance(expected, Tensor) or not isinstance(value, Tensor):
        return
    same = len(expected.shape) == value.dim() and all(
        not isinstance(size, int) or size == given for size, given in zip(expected.shape, value.shape, strict=True)
    )
    if not same or value.dtype != expected.dtype or value.device.type != "cpu":
        raise ValueError(
            f"{node.name}: expected {tuple(expected.shape)} {expected.dtype} on the CPU, given {tuple(value.shape)} "
            f"{value.dtype} on {value.device}"
        )


def compile(
    model: nn.Module | ExportedProgram,
    example_inputs: tuple[Any, ...],
    board: str = "pynq-z2",
    *,
    calibration: Iterable[Any],
    clip: str | float = "mse",
    host: Collection[str] = (),
) -> Deployed:
    """`model` for a board: BatchNorm folded, convolutions and linear maps in int8 on the board, everything else on the host.

    `example_inputs`: a tuple, as torch.export takes it; `report` is about them. `calibration`: batches of inputs, alone or
    with labels behind them, from which the ranges of activations are taken. `clip`: where a range ends, "max" (the largest
    magnitude), "mse" (the least mean square error) or a percentile such as 99.99. `host`: names of layers that are to run
    in fp32 on the host; no layer goes there unasked.

    Raises Unsupported, a ValueError with the reasons, where a layer cannot run on the board; ValueError for an unknown
    board or clip, a model in training, and calibration without data or with values that are not finite.
    """
    clip, described = checked_clip(clip), boards.board(board)
    net = network(export(model, example_inputs))
    if not net.layers:
        raise ValueError("the model has no convolution and no linear layer: nothing of it would run on the board")
    example = _flat_inputs(net, example_inputs)
    batches = [_flat_inputs(net, batch) for batch in calibration]
    if not batches:
        raise ValueError("calibration holds no batch: the ranges of activations are taken from it")
    placement = placed(net, described, _images(net, example), host)
    found = scales(net, batches, placement.observed, clip)
    return Deployed(placement, program(net, placement, found), example)


def _flat_inputs(net: Network, batch: Any) -> tuple[Any, ...]:
    """The inputs of a batch, what stands behind them (labels) left out."""
    flat = [batch] if isinstance(batch, Tensor) else pytree.tree_leaves(batch)
    if len(flat) < len(net.inputs):
        raise ValueError(f"a batch has {len(flat)} tensors, the model takes {len(net.inputs)} inputs")
    for node, value in zip(net.inputs, flat, strict=False):
        _check_input(node, value)
    return tuple(flat[: len(net.inputs)])


def _images(net: Network, example: tuple[Any, ...]) -> dict[Node, tuple[int, int]]:
    """Rows and columns of what each layer reads."""
    sources = {layer.source: layer for layer in net.layers}
    found: dict[Node, tuple[int, int]] = {}

    def see(node: Node, value: Any) -> None:
        if node in sources and not sources[node].reasons:
            found[node] = tuple(image(value, sources[node].kind)[0].shape[2:])

    net.run(*example, watch=see)
    return {**dict.fromkeys(sources, (0, 0)), **found}
