"""A program that a compiler rejects writes nothing, and says which versions did not go together."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("jax")

import jax

from accelops.targets import KernelFailed
from accelops.targets.xla import bridge_cpu


def test_what_does_not_compile_is_named_with_the_versions() -> None:
    def rejected(x: jax.Array) -> jax.Array:
        raise NotImplementedError("Unsupported operation in Mosaic\nand much more")

    with pytest.raises(KernelFailed, match=rf"rejected \(jax {jax.__version__}.*Unsupported operation in Mosaic$"):
        bridge_cpu.program(rejected)(torch.ones(3))


def test_a_program_is_compiled_once_for_each_set_of_shapes() -> None:
    traced = []

    def doubled(x: jax.Array) -> jax.Array:
        traced.append(x.shape)
        return 2 * x

    program = bridge_cpu.program(doubled)
    for shape in ((3,), (2, 2), (3,), (0,), (2, 2)):
        assert program(torch.ones(shape)).equal(2 * torch.ones(shape))
    assert traced == [(3,), (2, 2), (0,)]


def test_operands_are_neither_changed_nor_shared_with_results() -> None:
    program = bridge_cpu.program(lambda x: (x, [x + 1, None]))
    given = torch.arange(64.0)
    same, (more, nothing) = program(given)
    assert nothing is None and more.equal(given + 1)
    same.fill_(-1)
    assert given.equal(torch.arange(64.0)) and program(given)[0].equal(given)
