"""torch's own kernel, called as an implementation, obeys the contract."""

from __future__ import annotations

from accelops.kernels.conv import aten

from .contract import ConvContract


class TestAten(ConvContract):
    implementation = aten
    ours = False  # its 3D results may be contiguous, its sums depend on the number of threads
