"""Triton's own compilers take every Config of every family for every architecture: hardly a spill, and no more shared memory
than there is.

For each family, direction and memory format the layer of the suites with the most flops, which has the largest tiles; fp32 in
contiguous and bf16 in channels_last, with bias and activation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from accelops.bench.suites import NETWORKS, channels_last, conv_cases
from accelops.bench.triton_aot import Compiled, compile_on_all_cores
from accelops.kernels.conv import triton
from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec
from accelops.targets.triton import ARCHITECTURES, launching

MOST_SPILLED = 64  # bytes of a thread: ptxas gives up so many for room for one more program, 48 of them on sm_100


def largest(family: str, architecture: str) -> list[ConvSpec]:
    """Of what the family serves on an architecture."""
    cases = [case for network in NETWORKS for case in conv_cases(network)]
    found: list[ConvSpec] = []
    for direction in DIRECTIONS:
        contiguous = [
            replace(c.spec, device="meta", bias=direction != "dgrad", activation="silu")
            for c in cases
            if c.spec.direction == direction
        ]
        turned = [channels_last(replace(spec, dtype="bfloat16")) for spec in contiguous]
        for specs in (contiguous, turned):
            with launching(lambda *_, **__: None, ARCHITECTURES[architecture]):
                served = [s for s in specs if s is not None and not triton.FAMILIES[family].unsupported(s)]
            found += [max(served, key=lambda spec: spec.flops)] if served else []
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("family", triton.FAMILIES)
def test_every_config_compiles_and_fits(
    family: str, architecture: str, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # of the processes that compile
    specs = largest(family, architecture)
    if not specs:
        pytest.skip(f"{family} serves nothing on {architecture}")
    compiled = list(compile_on_all_cores(architecture, specs))
    record_property("compiled", len(compiled))
    assert {piece.spec for piece in compiled} == {spec.to_json() for spec in specs}
    assert [piece for piece in compiled if not fits(piece)] == []


def fits(piece: Compiled) -> bool:
    return (
        not piece.error
        and piece.spilled <= MOST_SPILLED
        and piece.shared <= ARCHITECTURES[piece.architecture].shared_memory
    )
