"""The kernels obey their contracts on tensors of device "fpga" too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from accelops.kernels.adam import fpga as adam
from accelops.kernels.bucket import fpga as bucket
from accelops.kernels.conv import fpga as conv

from ..adam.contract import HYPER, AdamContract, make
from ..bucket.contract import BucketContract
from ..conv.contract import ConvContract
from .on_device import BOARD, Moved, OnDevice, mapped, registered


@pytest.fixture(scope="module", autouse=True)
def device(emulated_board: Callable[[str], Any]) -> Iterator[torch.device]:
    yield from registered(emulated_board(BOARD))


class TestConv(ConvContract):
    implementation = OnDevice(conv)


class TestAdam(AdamContract):
    implementation = OnDevice(adam)

    def test_a_backward_through_the_old_parameter_is_refused(self) -> None:
        lists = mapped(make(torch.float32, ((5,),)), Moved())
        weight = lists.params[0].requires_grad_()
        loss = (weight**2).sum()
        with torch.no_grad():
            adam.run(adam.Config(), lists.spec(), lists, HYPER)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


class TestBucket(BucketContract):
    implementation = OnDevice(bucket)
    config = bucket.Config()
    numel = 3_001
