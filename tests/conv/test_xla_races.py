"""The Pallas kernels under jax's simulation of a TPU's memories: copies take place when they are waited for, what nothing
has written is NaN, and an access that no wait orders behind the other is a race."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("jax")

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as simulation  # nothing public tells of races
from jax.experimental.pallas import tpu as pltpu

from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.kernels.conv.xla import dense, depthwise, depthwise_kernels
from accelops.kernels.conv.xla.lowering import lowered, operands
from accelops.kernels.conv.xla.mode import Mode
from accelops.targets.xla import bridge_cpu

STRICT = pltpu.InterpretParams(detect_races=True, dma_execution_mode="on_wait", uninitialized_memory="nan")
SPEC = ConvSpec("fprop", (2, 8, 9, 10), (8, 1, 3, 3), (1, 1), (1, 1), (1, 1), groups=8, memory_format="channels_last")
SPECS = {
    "plain": SPEC,
    "strided": replace(SPEC, stride=(2, 3), weight=(8, 1, 5, 4), padding=(2, 1)),
    "dilated": replace(SPEC, dilation=(2, 3), padding=(2, 3)),
    "transposed": replace(SPEC, transposed=True, stride=(2, 2), output_padding=(1, 0)),
    "one image": replace(SPEC, input=(1, 8, 9, 10)),
    "more columns than registers": replace(SPEC, input=(1, 8, 3, 700), memory_format="contiguous"),
    "one line": ConvSpec("fprop", (3, 8, 37), (8, 1, 5), (1,), (2,), (1,), groups=8),
}


@pytest.fixture(autouse=True)
def _simulation_starts_anew() -> Iterator[None]:
    yield
    pltpu.reset_tpu_interpret_mode_state()


def simulated(config: Any, spec: ConvSpec, cores: int = 1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(what the simulation gives, what XLA's own lowering does)."""
    random = np.random.default_rng(0)
    given = [None if a is None else jnp.asarray(random.standard_normal(a.shape), a.dtype) for a in operands(spec)]
    mode = Mode(interpret=replace(STRICT, num_cores_or_threads=cores))
    assert bridge_cpu.emulated()  # its import keeps jax on the CPU
    got = jax.jit(lowered(config, spec, mode=mode))(*given)
    expected = jax.jit(lowered(dense.Config(), spec))(*given)
    return [[np.asarray(x) for x in xs if x is not None] for xs in (got, expected)]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", SPECS)
def test_no_race_and_no_unwritten_number_in_any_config(name: str, direction: str) -> None:
    spec = replace(SPECS[name], direction=direction, bias=direction == "fprop")
    configs = depthwise.configs(spec)
    assert configs
    for config in configs:
        for cores in (1, 2):
            for mine, exact in zip(*simulated(config, spec, cores), strict=True):
                np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-5 * np.abs(exact).max())
            assert not simulation.races.races_found, (config, spec)


class NoWait:
    """A copy for which nobody waits."""

    def __init__(self, copy: Any) -> None:
        self.start = copy.start

    def wait(self) -> None:
        pass


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_deleted_wait_is_found(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make = pltpu.make_async_copy
    monkeypatch.setattr(depthwise_kernels.pltpu, "make_async_copy", lambda *a: NoWait(make(*a)))
    spec = replace(SPEC, direction=direction)
    got, _ = simulated(depthwise.configs(spec)[-1], spec)
    assert simulation.races.races_found or any(np.isnan(x).any() for x in got)
