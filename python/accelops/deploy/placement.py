"""Where the parts of a network run: layers on the board, the rest on the host, and which results stay on the board.

A layer reads another's result where it lies, in int8, when nothing stands between them, both see the same kind of image and
the channels lie where it wants them. Everywhere else results cross between the board and the host; Placement says where.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from accelops.targets.fpga.boards import Board

from .graph import Layer, Network
from .packing import Form, read_form, unsupported, written_form

aten = torch.ops.aten

# Operators whose results are among the values they take: what they return has the scale of what they are given, so that
# pooling on the host between two layers costs no second rounding.
_KEEP_VALUES = (
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.adaptive_max_pool2d.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.dim,
    aten.unsqueeze.default,
)


class Unsupported(ValueError):
    """Layers that no engine of the board can compute and that the host was not asked to; `reasons` for each, by name."""

    def __init__(self, board: Board, reasons: Mapping[str, list[str]]) -> None:
        self.reasons = dict(reasons)
        told = "; ".join(f"{name}: {', '.join(why)}" for name, why in reasons.items())
        super().__init__(
            f"{len(reasons)} of the model's layers cannot run on {board.name}: {told}. "
            f"host={tuple(reasons)!r} runs them in fp32 on the host"
        )


@dataclass(frozen=True, eq=False)
class Placement:
    """`layers` on the board, in order; `host`, those that the host was asked to run. `producer`: the layer whose result a
    layer reads where it lies. `scale_of`: the node whose scale its input has. `forms`: how its input and its result lie.
    `raw`: its result is the sums."""

    board: Board
    layers: tuple[Layer, ...]
    host: tuple[Layer, ...]
    producer: dict[Layer, Layer]
    scale_of: dict[Layer, Node]
    forms: dict[Layer, tuple[Form, Form]]
    raw: frozenset[Layer]

    @property
    def observed(self) -> set[Node]:
        """The nodes that need a scale."""
        return set(self.scale_of.values()) | {layer.end for layer in self.layers if layer not in self.raw}


def placed(network: Network, board: Board, images: Mapping[Node, tuple[int, int]], host: Collection[str]) -> Placement:
    """`images`: rows and columns of what each node holds, as a layer sees it. Raises ValueError for a name in `host` that
    is no layer's, Unsupported where a layer has nowhere to run."""
    unknown = set(host) - {layer.name for layer in network.layers}
    if unknown:
        names = ", ".join(layer.name for layer in network.layers)
        raise ValueError(f"host={sorted(unknown)} names no layer of the model; its layers are {names}")
    reasons = {
        layer.name: why
        for layer in network.layers
        if layer.name not in host and (why := unsupported(layer, board, *images[layer.source]))
    }
    if reasons:
        raise Unsupported(board, reasons)
    layers = tuple(layer for layer in network.layers if layer.name not in host)
    producer = _producers(layers, board)
    raw = frozenset(
        layer for layer in layers if not layer.relu and all(user.op == "output" for user in layer.end.users)
    )
    ends = {layer.end for layer in layers if layer not in raw}
    scale_of = {layer: _origin(layer.source, ends) for layer in layers}
    forms = _forms(layers, producer, board)
    on_host = tuple(layer for layer in network.layers if layer.name in host)
    return Placement(board, layers, on_host, producer, scale_of, forms, raw)


def _producers(layers: tuple[Layer, ...], board: Board) -> dict[Layer, Layer]:
    by_end = {layer.end: layer for layer in layers}
    found = {}
    for layer in layers:
        before = by_end.get(layer.source)
        if before is None or before.kind != layer.kind:
            continue
        if layer.groups == 1 or written_form(before, board).alike(read_form(layer, board)):
            found[layer] = before
    return found


def _origin(node: Node, ends: set[Node]) -> Node:
    """The result of a layer on the board of whose values alone `node` consists, else the node itself."""
    at = node
    while at not in ends and at.target in _KEEP_VALUES:
        at = at.args[0]
    return at if at in ends else node


def _forms(layers: tuple[Layer, ...], producer: dict[Layer, Layer], board: Board) -> dict[Layer, tuple[Form, Form]]:
    """A result has the blocks that the layers which read it there reach for."""
    written = {}
    for layer in layers:
        needed = [read_form(reader, board).blocks for reader, before in producer.items() if before is layer]
        written[layer] = written_form(layer, board, max(needed, default=0))
    return {
        layer: (written[producer[layer]] if layer in producer else read_form(layer, board), written[layer])
        for layer in layers
    }
