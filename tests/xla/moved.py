"""Implementations as the contracts take them, for operands on the CPU: they are moved to torch_xla's device and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch_xla
from torch import Tensor

from accelops.kernels.adam import xla as adam
from accelops.kernels.adam.lists import Hyper, Lists
from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.bucket import xla as bucket
from accelops.kernels.bucket.layout import layout
from accelops.kernels.bucket.spec import BucketSpec
from accelops.kernels.conv import xla as conv
from accelops.kernels.conv.spec import ConvSpec


def there(spec: Any) -> Any:
    return replace(spec, device="xla")


def moved(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().to(torch_xla.device())


class Convolution:
    @staticmethod
    def unsupported(spec: ConvSpec) -> list[str]:
        if spec.memory_format != "contiguous":
            return ["tensors of torch_xla have one memory format"]
        return conv.unsupported(there(spec))

    @staticmethod
    def configs(spec: ConvSpec) -> list[Any]:
        return conv.configs(there(spec))

    @staticmethod
    def run(config: Any, spec: ConvSpec, *operands: Tensor | None, **options: Any) -> Any:
        got = conv.run(config, there(spec), *map(moved, operands), **options)
        torch_xla.sync()
        return tuple(None if t is None else t.cpu() for t in got) if isinstance(got, tuple) else got.cpu()


class Adam:
    @staticmethod
    def unsupported(spec: AdamSpec) -> list[str]:
        return adam.unsupported(there(spec))

    @staticmethod
    def configs(spec: AdamSpec) -> list[Any]:
        return adam.configs(there(spec))

    @staticmethod
    def run(config: Any, spec: AdamSpec, lists: Lists, hyper: Hyper) -> None:
        columns = {f.name: getattr(lists, f.name) for f in fields(Lists)}
        others = Lists(**{name: list(map(moved, column)) for name, column in columns.items()})
        adam.run(config, others.spec(hyper.seed is not None), others, hyper)
        torch_xla.sync()  # or the way back would compile a program for every tensor
        for name, column in columns.items():
            for original, result in zip(column, getattr(others, name), strict=True):
                if name != "grads":
                    original.copy_(result)


class Bucket:
    @staticmethod
    def unsupported(spec: BucketSpec) -> list[str]:
        return bucket.unsupported(there(spec))

    @staticmethod
    def run(config: Any, spec: BucketSpec, *operands: Any) -> None:
        others = tuple(_lines(given) for given in operands)
        bucket.run(config, there(spec), *others)
        torch_xla.sync()
        _written_back(operands, others)


def _lines(given: Any) -> Any:
    """In the order of memory, which does not move along."""
    if isinstance(given, Tensor):
        return moved(given)
    return [moved(_line(t)) for t in given] if isinstance(given, (list, tuple)) else given


def _line(tensor: Tensor) -> Tensor:
    dense = layout([tensor]).places[0].dense
    return tensor.as_strided((tensor.numel(),), (1,)) if dense else tensor.reshape(-1)


def _written_back(operands: Sequence[Any], others: Sequence[Any]) -> None:
    """All but the first, which every direction only reads."""
    for given, other in zip(operands[1:], others[1:], strict=True):
        for tensor, result in zip(*((x if isinstance(x, (list, tuple)) else [x]) for x in (given, other)), strict=True):
            if not isinstance(tensor, Tensor):
                continue
            if layout([tensor]).places[0].dense:
                _line(tensor).copy_(result)
            else:
                tensor.copy_(result.view(tensor.shape))
