"""torch's own kernel, called as an implementation, obeys the contract."""

from __future__ import annotations

from accelops.kernels.conv import aten

from .contract import ConvContract


class TestAten(ConvContract):
    implementation = aten
