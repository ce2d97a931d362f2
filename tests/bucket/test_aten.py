"""torch's own kernels, as composed in kernels/bucket/aten.py, obey the contract."""

from accelops.kernels.bucket import aten

from .contract import BucketContract


class TestAten(BucketContract):
    implementation = aten
    config = aten.Config()
