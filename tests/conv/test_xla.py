"""The lowerings for TPUs obey the contract, in every Config, run by jax on the CPU; Pallas kernels are interpreted."""

from __future__ import annotations

import pytest

pytest.importorskip("jax")

from accelops.kernels.conv import xla

from .contract import ConvContract


class TestXla(ConvContract):
    implementation = xla
