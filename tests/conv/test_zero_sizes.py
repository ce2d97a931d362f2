"""Convolutions with a size of zero, in each dimension that has one: torch's result, or torch's exception.

Which of them torch takes changes between its versions, so torch is asked: its own functions say what is expected, of
accelops.functional and of themselves under enable(), served by whatever dispatch selects and by the reference by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import accelops

NAMES = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


@pytest.fixture(autouse=True)
def torch_again() -> Iterator[None]:
    yield
    accelops.disable()


def shapes(name: str, groups: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(input, weight) with every choice of sizes that are zero."""
    ndim, transposed = int(name[-2]), "transpose" in name
    for zeros in product((False, True), repeat=5):
        n, c, k, size, kernel = (0 if zero else full for zero, full in zip(zeros, (2, 4, 6, 5, 3), strict=True))
        weight = (c, k // groups) if transposed else (k, c // groups)
        yield (n, c, *(4,) * (ndim - 1), size), (*weight, *(2,) * (ndim - 1), kernel)


def outcome(function: Callable[..., Tensor], operands: list[Tensor], **options: Any) -> list[Tensor] | type[Exception]:
    try:
        output = function(*operands, **options)
        return [output.detach(), *torch.autograd.grad(output, operands, torch.ones_like(output))]
    except Exception as error:
        return type(error)


def same(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, type) or isinstance(mine, type):
        return mine is theirs
    pairs = list(zip(mine, theirs, strict=True))
    alike = all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
    return alike and all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("way", ["face", "rerouted", "rerouted to the reference"])
@pytest.mark.parametrize("name", NAMES)
def test_a_zero_anywhere_gives_what_torch_gives(name: str, way: str, groups: int) -> None:
    taken = 0
    for input, weight in shapes(name, groups):
        channels = weight[1] * groups if "transpose" in name else weight[0]
        operands = [torch.randn(shape, requires_grad=True) for shape in (input, weight, (channels,))]
        expected = outcome(getattr(F, name), operands, padding=1, groups=groups)
        taken += isinstance(expected, list)
        function = getattr(accelops.functional if way == "face" else F, name)
        scope = nullcontext() if way == "face" else accelops.enabled()
        with scope, accelops.use("reference") if "reference" in way else nullcontext():
            got = outcome(function, operands, padding=1, groups=groups)
        if "reference" in way and isinstance(expected, type) and isinstance(got, list):
            continue  # oneDNN refuses a transposed convolution without pixels; the definition has a result: nothing, and zeros
        assert same(got, expected), (input, weight, got, expected)
    assert taken >= 3  # an empty batch, at the least
