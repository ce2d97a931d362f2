"""The steps by which a network runs: layers on an engine, everything else on the host, and the crossings between.

An engine is a board (engine.py) or the integer reference (reference.py): both are given the same integers and must return
the same. Values on the engine are freed after their last use, and all of them when a step fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import Node

from .graph import Network, call
from .packing import Form, Packed
from .placement import Placement
from .quantise import quantised, to_int8

Sizes = tuple[int, int, int, int]


class Engine(Protocol):
    """`place` brings an int8 image (N, C, H, W) to it; `convolve` runs a layer on what lies there, `sizes` being those of
    the input; `fetch` brings a layer's result (N, K, P, Q) back; `free` gives up a value."""

    def place(self, image: Tensor, form: Form) -> Any: ...
    def convolve(self, packed: Packed, x: Any, sizes: Sizes) -> Any: ...
    def fetch(self, packed: Packed, y: Any, sizes: Sizes) -> Tensor: ...
    def free(self, value: Any) -> None: ...


@dataclass(frozen=True)
class There:
    """A value on the engine: an image of `sizes`, which in the model has the dimensions `leading` before its channels."""

    value: Any
    sizes: Sizes
    kind: str
    leading: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """In the model."""
        _, c, h, w = self.sizes
        return (*self.leading, *{"conv2d": (c, h, w), "conv1d": (c, w), "linear": (c,)}[self.kind])


def image(x: Tensor, kind: str) -> tuple[Tensor, tuple[int, ...]]:
    """(N, C, H, W) as the engine sees `x`, and the dimensions before its channels. The rows of a linear map are the
    columns of one image, which is read in long bursts."""
    own = {"conv2d": 3, "conv1d": 2, "linear": 1}[kind]
    leading = tuple(x.shape[: x.dim() - own])
    flat = x.reshape(prod(leading), *x.shape[x.dim() - own :])
    if kind == "linear":
        return flat.t()[None, :, None, :], leading
    return flat if kind == "conv2d" else flat.unsqueeze(2), leading


@dataclass(frozen=True, eq=False)
class OnHost:
    """Torch's operator."""

    node: Node


@dataclass(frozen=True, eq=False)
class SizeOf:
    """A size of a value that is on the engine; nothing crosses for it."""

    node: Node
    source: str


@dataclass(frozen=True, eq=False)
class Upload:
    """The host's value of `source`, in int8."""

    result: str
    source: Node
    kind: str
    scale: float
    form: Form


@dataclass(frozen=True, eq=False)
class Convolve:
    result: str
    source: str
    packed: Packed


@dataclass(frozen=True, eq=False)
class Download:
    """A layer's result, in fp32."""

    node: Node
    source: str
    packed: Packed


Step = OnHost | SizeOf | Upload | Convolve | Download
Watch = Callable[[Packed, Tensor], None]


@dataclass(frozen=True, eq=False)
class Program:
    network: Network
    steps: tuple[Step, ...]
    freed: tuple[tuple[Node | str, ...], ...] = field(default=())

    def run(self, engine: Engine, flat: tuple[Any, ...], watch: Watch | None = None) -> tuple[Any, ...]:
        """Flat inputs to flat outputs. `watch` sees the integers of every layer's result, brought back for it."""
        values: dict[Node | str, Any] = {**self.network.constants, **dict(zip(self.network.inputs, flat, strict=True))}
        try:
            for step, freed in zip(self.steps, self.freed, strict=True):
                self._do(step, engine, values)
                if watch is not None and isinstance(step, Convolve):
                    there = values[step.result]
                    watch(step.packed, engine.fetch(step.packed, there.value, there.sizes))
                for key in freed:
                    _free(engine, values.pop(key))
        finally:
            for value in values.values():
                _free(engine, value)
        return tuple(values[o] if isinstance(o, Node) else o for o in self.network.outputs)

    @staticmethod
    def _do(step: Step, engine: Engine, values: dict[Node | str, Any]) -> None:
        match step:
            case OnHost(node):
                values[node] = call(node, values)
            case SizeOf(node, source):
                values[node] = values[source].shape[node.args[1]]
            case Upload(result, source, kind, scale, form):
                seen, leading = image(values[source], kind)
                values[result] = There(engine.place(to_int8(seen, scale), form), tuple(seen.shape), kind, leading)
            case Convolve(result, source, packed):
                x = values[source]
                sizes = packed.layer.sizes(x.sizes[0], *x.sizes[2:])
                values[result] = There(engine.convolve(packed, x.value, x.sizes), sizes, x.kind, x.leading)
            case Download(node, source, packed):
                y = values[source]
                real = packed.layer.real(engine.fetch(packed, y.value, y.sizes))
                values[node] = (real[0, :, 0].t() if y.kind == "linear" else real).reshape(y.shape)


def _free(engine: Engine, value: Any) -> None:
    if isinstance(value, There):
        engine.free(value.value)


def program(network: Network, placement: Placement, scales: dict[Node, float]) -> Program:
    steps = tuple(_steps(network, placement, scales))
    last: dict[Node | str, int] = {}
    for i, step in enumerate(steps):
        for key in _used(step):
            last[key] = i
    kept = {o for o in network.outputs if isinstance(o, Node)} | set(network.constants)
    freed = tuple(tuple(key for key, at in last.items() if at == i and key not in kept) for i in range(len(steps)))
    return Program(network, steps, freed)


def _used(step: Step) -> list[Node | str]:
    if isinstance(step, OnHost):
        return list(step.node.all_input_nodes)
    # A result that nobody reads is used by the step that makes it.
    return [step.source, step.result] if isinstance(step, Upload | Convolve) else [step.source]


def _steps(network: Network, placement: Placement, scales: dict[Node, float]) -> Iterator[Step]:
    on_board = {layer.end: layer for layer in placement.layers}
    inside = {node for layer in placement.layers for node in layer.nodes} - set(on_board)
    uploaded: dict[tuple[Node, str, Form], str] = {}
    packed: dict[Node, Packed] = {}
    for node in network.nodes:
        if node in inside:
            continue
        if node not in on_board:
            size_of = node.target is torch.ops.aten.sym_size.int and node.args[0] in on_board
            yield SizeOf(node, node.args[0].name) if size_of else OnHost(node)
            continue
        layer = on_board[node]
        source_form, form = placement.forms[layer]
        scale = scales[placement.scale_of[layer]]
        if layer in placement.producer:
            source = placement.producer[layer].end.name
        else:
            key = (layer.source, layer.kind, source_form)
            if key not in uploaded:
                uploaded[key] = f"{layer.source.name} as {layer.kind} {len(uploaded)}"
                yield Upload(uploaded[key], layer.source, layer.kind, scale, source_form)
            source = uploaded[key]
        own = None if layer in placement.raw else scales[node]
        packed[node] = Packed(quantised(layer, scale, own), placement.board, source_form, form)
        yield Convolve(node.name, source, packed[node])
        if any(_needs_host(user, placement, layer) for user in node.users):
            yield Download(node, node.name, packed[node])


def _needs_host(user: Node, placement: Placement, layer: object) -> bool:
    """Whether `user` reads the layer's result on the host."""
    reads_there = any(before is layer and user in after.nodes for after, before in placement.producer.items())
    return not reads_there and user.target is not torch.ops.aten.sym_size.int
