"""Bucketing lowered for TPUs obeys the contract, run by jax on the CPU."""

from __future__ import annotations

import pytest

pytest.importorskip("jax")

from accelops.kernels.bucket import xla

from .contract import Float32Contract


class TestXla(Float32Contract):
    implementation = xla
    config = xla.Config()
    least_scale = 2.0**-60  # XLA flushes what is subnormal, on CPUs and TPUs
