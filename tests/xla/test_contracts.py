"""What is lowered for TPUs obeys the contracts on torch_xla's device too; to compile takes the most time, so each test of
convolution takes one of its Specs and one of its Configs, others every time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from accelops.kernels.bucket.xla import Config
from accelops.kernels.conv.spec import ConvSpec

from ..adam.contract import AdamContract
from ..bucket.contract import Float32Contract
from ..conv.contract import ConvContract, Operands, results
from .moved import Adam, Bucket, Convolution


class TestConvolution(ConvContract):
    implementation = Convolution

    def supported(self, specs: Iterator[ConvSpec]) -> list[ConvSpec]:
        served = super().supported(specs)
        return random.sample(served, min(1, len(served)))

    def configs(self, spec: ConvSpec) -> list[Any]:
        return random.sample(Convolution.configs(spec), 1)

    def assert_same_on_every_thread_count(self, config: Any, spec: ConvSpec, given: Operands) -> None:
        one, two = (results(Convolution, config, spec, given) for _ in range(2))
        assert all(before.equal(after) for before, after in zip(one, two, strict=True)), (config, spec)


class TestAdam(AdamContract):
    implementation = Adam


class TestBucket(Float32Contract):
    implementation = Bucket
    config = Config()
    least_scale = 2.0**-60  # XLA flushes what is subnormal, on CPUs and TPUs
    steps = 6
