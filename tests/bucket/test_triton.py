"""The Triton kernels obey the contract; where there is no GPU, Triton's interpreter runs them, a thousand times slower."""

from __future__ import annotations

import pytest

from accelops.kernels.bucket import triton
from accelops.kernels.bucket.spec import BucketSpec

from ..interpreter import interpreter_rounds_to_bf16  # noqa: F401
from .contract import BucketContract

pytestmark = [
    pytest.mark.usefixtures("interpreter_rounds_to_bf16"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, at the interpreter's infinities
]


class TestTriton(BucketContract):
    implementation = triton
    config = max(triton.configs(BucketSpec("pack", 1)), key=lambda config: config.block)
