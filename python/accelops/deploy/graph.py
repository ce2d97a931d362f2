"""A model as a graph of layers: exported, without mutation, its constants computed, its normalisations folded.

A *layer* is a convolution or linear map with constant weights, with the BatchNorm and the ReLU that follow it: what the
board's engine computes in one go. Everything else in the graph stays as torch's operators, for the host.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.nn.utils.fusion import fuse_conv_bn_weights

aten = torch.ops.aten

# Decomposed to one form each, so that strings of padding and the numbers of dimensions need no cases of their own.
_TO_CONVOLUTION = (
    *(getattr(getattr(aten, f"conv{n}d"), overload) for n in (1, 2, 3) for overload in ("default", "padding")),
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
    aten._convolution_mode.default,
)
_NORM = aten._native_batch_norm_legit_no_training.default
_IDENTITIES = (aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default)
_CHECKS = (aten._assert_tensor_metadata.default,)
_TRANSPOSES = (aten.t.default, aten.permute.default, aten.transpose.int)


@dataclass(frozen=True, eq=False)
class Layer:
    """In fp32. `weight` (K, C / groups, R, S) and `bias` (K,) have the BatchNorm folded in; a linear map is a 1x1
    convolution, a 1D convolution one of height 1. `source` is what it reads, `nodes` what it stands for, the last one its
    result. `relu`: negative results are zero; where they end above as well (ReLU6), the range that calibration finds ends
    there. `reasons`: why no engine could compute it, whatever its sizes."""

    name: str
    kind: str
    source: Node
    nodes: tuple[Node, ...]
    weight: Tensor
    bias: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    relu: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def end(self) -> Node:
        return self.nodes[-1]


@dataclass(frozen=True, eq=False)
class Network:
    """`nodes`: what is computed for each input, in order; `constants`: values of nodes that are not; `layers` in order."""

    program: ExportedProgram
    nodes: tuple[Node, ...]
    constants: dict[Node, Any]
    inputs: tuple[Node, ...]
    outputs: tuple[Any, ...]
    layers: tuple[Layer, ...]

    def run(self, *flat: Any, watch: Callable[[Node, Any], None] = lambda node, value: None) -> tuple[Any, ...]:
        """In fp32, on the host: flat inputs to flat outputs. `watch` sees the value of every node."""
        values = dict(self.constants)
        last = _last_uses(self.nodes, self.outputs)
        for node, value in zip(self.inputs, flat, strict=True):
            values[node] = value
            watch(node, value)
        for node in self.nodes:
            values[node] = call(node, values)
            watch(node, values[node])
            for unused in last.get(node, ()):
                values.pop(unused, None)
        return tuple(values[o] if isinstance(o, Node) else o for o in self.outputs)


def call(node: Node, values: dict[Node, Any]) -> Any:
    arguments = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
    with torch.no_grad():
        return node.target(*arguments[0], **arguments[1])


def _last_uses(nodes: Sequence[Node], outputs: Iterable[Any]) -> dict[Node, list[Node]]:
    kept, last = {o for o in outputs if isinstance(o, Node)}, {}
    for node in nodes:
        for used in node.all_input_nodes:
            last[used] = node
    found: dict[Node, list[Node]] = {}
    for used, node in last.items():
        if used not in kept:
            found.setdefault(node, []).append(used)
    return found


def export(model: nn.Module | ExportedProgram, example_inputs: tuple[Any, ...]) -> ExportedProgram:
    """`model` as a program, for any number of images where it allows that. Raises ValueError for a model in training."""
    if isinstance(model, ExportedProgram):
        return model
    training = [name or type(module).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(f"the model is in training ({training[0]}): call model.eval() before it is compiled")
    # Torch takes a batch of one for a constant; two of the same image leave it free.
    several = tuple(torch.cat([x, x]) if _batch(x) == 1 else x for x in example_inputs)
    shapes = tuple({0: Dim.AUTO} if _batch(x) else None for x in several)
    with torch.no_grad():
        return torch.export.export(model, several, dynamic_shapes=shapes)


def _batch(x: Any) -> int:
    return x.shape[0] if isinstance(x, Tensor) and x.dim() else 0


def network(program: ExportedProgram) -> Network:
    """Raises ValueError where running the program would change its own state, as in training."""
    default = torch.export.default_decompositions()
    program = program.run_decompositions({op: default[op] for op in _TO_CONVOLUTION})
    _refuse_mutation(program)
    _drop_identities(program)
    constants = _constants(program)
    nodes = tuple(n for n in program.graph.nodes if n.op == "call_function" and n not in constants)
    (output,) = (n for n in program.graph.nodes if n.op == "output")
    user = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT}
    inputs = tuple(n for n in program.graph.nodes if n.op == "placeholder" and n.name in user)
    return Network(program, nodes, constants, inputs, tuple(output.args[0]), tuple(_layers(nodes, constants, output)))


def _refuse_mutation(program: ExportedProgram) -> None:
    changed = [s.target for s in program.graph_signature.output_specs if s.kind != OutputKind.USER_OUTPUT]
    if changed:
        raise ValueError(f"the program changes its own state ({changed[0]}): export the model after model.eval()")


def _drop_identities(program: ExportedProgram) -> None:
    for node in list(program.graph.nodes):
        dropout = node.target is aten.dropout.default and not node.args[2]
        if node.target in _IDENTITIES or dropout:
            node.replace_all_uses_with(node.args[0])
        if node.target in _IDENTITIES or node.target in _CHECKS or dropout:
            program.graph.erase_node(node)


def _constants(program: ExportedProgram) -> dict[Node, Any]:
    """Parameters, buffers, and all that is computed from them alone."""
    signature = program.graph_signature
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    stored = {**program.constants, **program.state_dict}
    values: dict[Node, Any] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in named:
            values[node] = stored[named[node.name]].detach()
        elif node.op == "get_attr":
            values[node] = operator.attrgetter(node.target)(program.graph_module)
        elif node.op == "call_function" and not _random(node) and all(n in values for n in node.all_input_nodes):
            values[node] = call(node, values)
    return values


def _random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _layers(nodes: Sequence[Node], constants: dict[Node, Any], output: Node) -> Iterator[Layer]:
    taken: dict[str, int] = {}
    for node in nodes:
        found = _matched(node, constants)
        if found is None:
            continue
        found.follow(constants, output)
        name = _module(node)
        taken[name] = taken.get(name, 0) + 1
        yield found.layer(name if taken[name] == 1 else f"{name}:{taken[name]}")


def _module(node: Node) -> str:
    """The path of the module that it comes from, else its own name."""
    paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return paths[-1] if paths and paths[-1] and not paths[-1].startswith("_") else node.name


def _matched(node: Node, constants: dict[Node, Any]) -> _Growing | None:
    if node.target is aten.convolution.default:
        source, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
        moves = {"stride": stride, "padding": padding, "dilation": dilation}
        kind = {1: "conv1d", 2: "conv2d"}.get(len(stride), "conv3d")
        reasons = ["a transposed convolution"] if transposed else []
        reasons += ["a 3D convolution"] if kind == "conv3d" else []
    elif node.target is aten.linear.default:
        source, weight, bias = (*node.args, None)[:3]
        kind, moves, groups, reasons = "linear", {}, 1, []
    elif node.target is aten.addmm.default and not node.kwargs and node.args[1] not in constants:
        bias, source, weight = node.args
        kind, moves, groups, reasons = "linear", {}, 1, []
    else:
        return None
    wanting = [n for n in (weight, bias) if n is not None and n not in constants]
    if wanting:
        reasons.append(f"its {'weight' if weight in wanting else 'bias'} is computed from the input")
        return _Growing(node, kind, source, torch.empty(0, 1, 1, 1), None, moves, groups, reasons)
    w, b = constants[weight], None if bias is None else constants[bias]
    if node.target is aten.addmm.default:
        w = w.t()
        b = b.expand(len(w))
    if w.dtype != torch.float32:
        reasons.append(f"its weight is {str(w.dtype).removeprefix('torch.')}, not float32")
    return _Growing(node, kind, source, w, b, moves, groups, reasons)


@dataclass
class _Growing:
    """A layer while what follows it is folded in."""

    node: Node
    kind: str
    source: Node
    weight: Tensor
    bias: Tensor | None
    moves: dict[str, Sequence[int]]
    groups: int
    reasons: list[str]
    nodes: list[Node] = field(default_factory=list)
    relu: bool = False

    def follow(self, constants: dict[Node, Any], output: Node) -> None:
        self.nodes = [self.node]
        if self.reasons:
            return
        norm = self._next()
        if norm is not None and norm.target is _NORM and self._foldable(norm, constants):
            picks = list(norm.users)
            if len(picks) == 1 and picks[0].target is operator.getitem and picks[0].args[1] == 0:
                gamma, beta, mean, variance = (None if n is None else constants[n] for n in norm.args[1:5])
                fused = fuse_conv_bn_weights(self.weight, self.bias, mean, variance, norm.args[6], gamma, beta)
                self.weight, self.bias = (p.detach() for p in fused)
                self.nodes += [norm, picks[0]]
        activation = self._next()
        if activation is not None and _is_relu(activation):
            self.relu = True
            self.nodes.append(activation)

    def _next(self) -> Node | None:
        """Its only user."""
        users = list(self.nodes[-1].users)
        return users[0] if len(users) == 1 and users[0].args and users[0].args[0] is self.nodes[-1] else None

    def _foldable(self, norm: Node, constants: dict[Node, Any]) -> bool:
        """Constant, and of the layer's channels: a linear map's are the last dimension, a BatchNorm's the second."""
        value = norm.args[0].meta.get("val")
        same = self.kind != "linear" or (value is not None and value.dim() == 2)
        return same and all(n is None or n in constants for n in norm.args[1:5])

    def layer(self, name: str) -> Layer:
        weight = self.weight
        while weight.dim() < 4:  # (K, C) to 1x1, (K, C, S) to height 1
            weight = weight.unsqueeze(2)
        bias = torch.zeros(len(weight)) if self.bias is None else self.bias
        moves = {
            k: (d, v[0]) if len(v) == 1 else tuple(v) for d, (k, v) in zip((1, 0, 1), self.moves.items(), strict=False)
        }
        return Layer(name, self.kind, self.source, tuple(self.nodes), weight, bias, **moves, groups=self.groups,
                     relu=self.relu, reasons=tuple(self.reasons))  # fmt: skip


def _is_relu(node: Node) -> bool:
    """A ReLU in any of its forms, ReLU6 and the like among them."""
    if node.target in (aten.relu.default, aten.relu6.default):
        return True
    low, high = (*node.args[1:], None, None)[:2]
    return node.target in (aten.hardtanh.default, aten.clamp.default) and low == 0 and not isinstance(high, Node)
