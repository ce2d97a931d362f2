"""Device "fpga" for tests: an emulated board as fpga:0, and implementations whose operands are moved there and back."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import accelops
from accelops.kernels.spec import Spec
from accelops.targets.fpga.device import residence
from accelops.targets.fpga.driver import Driver

BOARD = "pynq-z2"


def registered(*drivers: Driver) -> Iterator[torch.device]:
    """The device, without boards again behind it: torch keeps its name, and other tests must not meet it."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++: the device is compiled for the torch that is installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # another test may have run autograd before
        device = accelops.fpga_device(*drivers)
    yield device
    residence.attach(())


@dataclass(frozen=True)
class OnDevice:
    """An implementation as contracts call it, on copies of the operands in fpga:0; what it writes there is copied back."""

    implementation: ModuleType

    def unsupported(self, spec: Spec) -> list[str]:
        return self.implementation.unsupported(spec)

    def configs(self, spec: Spec) -> list[Any]:
        return self.implementation.configs(spec)

    def run(self, config: Any, spec: Spec, *operands: Any, **options: Any) -> Any:
        there = Moved()
        made = self.implementation.run(config, replace(spec, device="fpga"), *mapped(operands, there), **options)
        there.back()
        assert all(t.device.type == "fpga" for t in leaves(made))
        return mapped(made, Tensor.cpu)


class Moved:
    """Tensors in fpga:0 as they are: all of their memory is moved, so gaps and overlaps are as they were."""

    def __init__(self) -> None:
        self._memory: dict[int, tuple[Tensor, Tensor]] = {}  # by its address: bytes here, bytes there

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._memory:
            here = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._memory[storage.data_ptr()] = here, here.to("fpga")
        there = self._memory[storage.data_ptr()][1].untyped_storage()
        made = torch.empty(0, dtype=tensor.dtype, device="fpga")
        return made.set_(there, tensor.storage_offset(), tensor.shape, tensor.stride())

    def back(self) -> None:
        for here, there in self._memory.values():
            here.copy_(there)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(mapped(v, change) for v in value)
    if is_dataclass(value):
        return replace(value, **{f.name: mapped(getattr(value, f.name), change) for f in fields(value)})
    return value


def leaves(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    mapped(value, lambda t: found.append(t) or t)
    return found
