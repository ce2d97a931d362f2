"""The step lowered for TPUs obeys the contract, run by jax on the CPU."""

from __future__ import annotations

import pytest

pytest.importorskip("jax")

from accelops.kernels.adam import xla

from .contract import AdamContract


class TestXla(AdamContract):
    implementation = xla
