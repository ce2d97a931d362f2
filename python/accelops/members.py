"""The classes that accelerate puts in the place of torch's own, and how neighbours among them run as one.

A convolution with `converts_input` runs in channels_last; its weight stays as it is, so that optimizers made before stay
right (a step of RegNet with converted weights takes 0.98 of the time, one of MobileNetV2 or ConvNeXt-T 1.02 to 1.09).
Inside the forward of their parent, and in eval mode without gradients, members of a group (joining.py) may join: the
convolution computes for those that follow and hands them a stand-in, which the last exchanges for the result. They know it
by identity. The stand-in has the result's shape and NaN for values: code that was not traced, and looks at what should lie
between the members, cannot take it for a result. A parent whose stand-ins were not exchanged runs again, apart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .joining import convolve, enter, kind, large, ordinary, torchs_class


@dataclass
class _Handed:
    stand_in: Tensor
    result: Tensor
    members: list[nn.Module]  # that have yet to be called, in order


class Joint:
    """What one parent's forward joins: the groups, asked for when a convolution first needs them, and by id of the
    stand-in what was handed."""

    def __init__(self, groups: Callable[[], Iterable[Sequence[nn.Module]]]) -> None:
        self._groups = groups
        self._following: dict[nn.Module, list[nn.Module]] | None = None
        self.handed: dict[int, _Handed] = {}

    def following(self, convolution: nn.Module) -> list[nn.Module] | None:
        if self._following is None:
            self._following = {first: rest for first, *rest in self._groups()}
        return self._following.get(convolution)


class _InForce(threading.local):
    joint: Joint | None = None


_in_force = _InForce()


@contextmanager
def joining(groups: Callable[[], Iterable[Sequence[nn.Module]]]) -> Iterator[Joint]:
    """The groups may join in this thread, until the end of the `with` or a joining within."""
    before = _in_force.joint
    _in_force.joint = Joint(groups)
    try:
        yield _in_force.joint
    finally:
        _in_force.joint = before


class Member(nn.Module):
    """A module that takes no action of its own where the convolution before it has joined it."""

    def forward(self, input: Tensor) -> Tensor:
        handed = _in_force.joint and _in_force.joint.handed.get(id(input))
        if not handed or handed.members[0] is not self:
            return super().forward(input)
        del handed.members[0]
        if handed.members:
            return input
        del _in_force.joint.handed[id(input)]
        return handed.result


class _Convolution(nn.Module):
    converts_input = False  # a flag, for torch's memory formats do not pickle in the protocol of torch.save

    def forward(self, input: Tensor, *rest: Any, **options: Any) -> Tensor:
        if not ordinary(input):
            return super().forward(input, *rest, **options)
        input = enter(self, input)
        joint = _in_force.joint
        following = joint.following(self) if joint is not None and large(self, input) else None
        if not following:
            return super().forward(input, *rest, **options)
        result, joined = convolve(self, following, input)
        if not joined:
            return result
        stand_in = result.new_full((), torch.nan).expand_as(result)
        joint.handed[id(stand_in)] = _Handed(stand_in, result, following[:joined])
        return stand_in


class Conv1d(_Convolution, nn.Conv1d):
    pass


class Conv2d(_Convolution, nn.Conv2d):
    pass


class Conv3d(_Convolution, nn.Conv3d):
    pass


class ConvTranspose2d(_Convolution, nn.ConvTranspose2d):
    pass


class ConvTranspose3d(_Convolution, nn.ConvTranspose3d):
    pass


class BatchNorm1d(Member, nn.BatchNorm1d):
    pass


class BatchNorm2d(Member, nn.BatchNorm2d):
    pass


class BatchNorm3d(Member, nn.BatchNorm3d):
    pass


class ReLU(Member, nn.ReLU):
    pass


class SiLU(Member, nn.SiLU):
    pass


class GELU(Member, nn.GELU):
    pass


_CLASSES = (Conv1d, Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d, BatchNorm1d, BatchNorm2d, BatchNorm3d, ReLU, SiLU, GELU)  # fmt: skip
torchs_class.update({ours: ours.__bases__[1] for ours in _CLASSES})
_OURS = {torchs: ours for ours, torchs in torchs_class.items()}
FORMATS = {
    torch.channels_last: (nn.Conv2d, nn.ConvTranspose2d),
    torch.channels_last_3d: (nn.Conv3d, nn.ConvTranspose3d),
}


def make_member(module: nn.Module) -> None:
    """Give `module`, one of torch's classes that has a place here, ours."""
    module.__class__ = _OURS[kind(module)]
    module.__dict__["__module__"] = kind(module).__module__  # torch.fx takes for a leaf what says that it is torch.nn's


def set_format(module: nn.Module, form: torch.memory_format) -> None:
    """Let `module` convert its input, where it is a convolution that knows the format."""
    if kind(module) in FORMATS[form]:
        make_member(module)
        module.converts_input = True
