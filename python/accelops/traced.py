"""Groups in modules with a forward of their own (a ResNet's block), found by torch.fx and run as one in eval mode.

The forward stays the author's: it is traced once, with every submodule as a leaf, to learn where a convolution's result
goes to one norm or activation only. In eval mode without gradients these groups are then allowed to join (members.py) for
the length of the forward; training runs the forward alone. The module's class becomes a subclass of its own, with the same
name, that pickles and copies as what it is.
"""

from __future__ import annotations

import copyreg
import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from .joining import ACTIVATIONS, NORMS, group, kind
from .members import Member, joining, make_member

Names = tuple[str, ...]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


class Traced(nn.Module):
    """Before the class of a module: `_accelops_groups` names its children that may run as one."""

    _accelops_groups: tuple[Names, ...]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        make, arguments, *state = super().__reduce_ex__(protocol)
        if make is copyreg.__newobj__ and arguments[0] is type(self):
            make, arguments = _new, (type(self).__bases__[1], *arguments[1:])
        return make, arguments, *state

    def groups_now(self) -> Iterator[tuple[Names, list[nn.Module]]]:
        """The groups as the children are now: some may have been replaced, hooked, or put into training."""
        for names in self._accelops_groups:
            modules = [self._modules.get(name) for name in names]
            found = next((i for i, m in enumerate(modules[1:], 1) if not isinstance(m, Member)), len(modules))
            length = group(modules[:found]) if modules[0] is not None else 0
            if length > 1 and not self.training:
                yield names[:length], modules[:length]


def _new(base: type[nn.Module], *arguments: Any) -> nn.Module:
    cls = _class(base)
    return cls.__new__(cls, *arguments)


@functools.cache
def _class(base: type[nn.Module]) -> type[nn.Module]:
    @functools.wraps(base.forward)
    def forward(self: Traced, *arguments: Any, **options: Any) -> Any:
        plainly = super(cls, self).forward
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return plainly(*arguments, **options)
        with joining(lambda: [modules for _, modules in self.groups_now()]) as joint:
            result = plainly(*arguments, **options)
        return plainly(*arguments, **options) if joint.handed else result

    names = {"forward": forward, "__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}  # fmt: skip
    cls = type(base.__name__, (Traced, base), names)
    return cls


def candidate(module: nn.Module) -> bool:
    """Whether it has children that might join, and a forward that calls them."""
    kinds = {kind(child) for child in module._modules.values() if child is not None}
    follows = kinds & {*NORMS.values(), *ACTIVATIONS}
    return bool(kinds & {*NORMS} and follows) and type(module) not in (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def join(module: nn.Module, groups: tuple[Names, ...]) -> None:
    """Let the children of `module` in each of `groups` run as one."""
    for name in {name for names in groups for name in names}:
        make_member(module._modules[name])
    if groups:
        module.__class__ = _class(type(module))
        module._accelops_groups = groups


def find(module: nn.Module) -> tuple[tuple[Names, ...], str]:
    """The groups of children that `module` calls in a row in eval mode, each with nothing but the result of the one
    before; or none, and why torch.fx could not follow."""
    before = dict(module.__dict__)  # a forward may leave what it computes in attributes
    try:
        module.__dict__["training"] = False
        return _groups(module, _Tracer().trace(module)), ""
    except Exception as error:  # a forward may raise anything when it meets what is no tensor
        return (), f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    finally:
        module.__dict__.clear()
        module.__dict__.update(before)


def _groups(module: nn.Module, graph: fx.Graph) -> tuple[Names, ...]:
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    found = []
    for node in graph.nodes:
        names = []
        if _child(module, node) in NORMS and calls[node.target] == 1:
            names = [node.target]
            for wanted in ((NORMS[_child(module, node)],), tuple(ACTIVATIONS)):
                following = next(iter(node.users)) if len(node.users) == 1 else None
                if following is not None and _child(module, following) in wanted and following.args == (node,):
                    node = following
                    names.append(node.target)
        if len(names) > 1:
            found.append(tuple(names))
    return tuple(found)


def _child(module: nn.Module, node: fx.Node) -> type[nn.Module] | None:
    """The class of the child that the node calls with one argument."""
    if node.op != "call_module" or node.target not in module._modules or len(node.args) != 1 or node.kwargs:
        return None
    child = module._modules[node.target]
    return kind(child) if "forward" not in child.__dict__ else None
