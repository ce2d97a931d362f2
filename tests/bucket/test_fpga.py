"""The reduction engine of a board obeys the contract, on boards that are emulated in this process."""

from __future__ import annotations

import pytest
import torch

import accelops.dispatch.bucket  # noqa: F401  defines the ops
from accelops.kernels.bucket import fpga
from accelops.kernels.bucket.spec import BucketSpec
from accelops.targets.fpga.driver import Driver

from ..fpga.driven import BOARDS, recorded
from .contract import Float32Contract


@pytest.mark.parametrize("driven", BOARDS, indirect=True)
@pytest.mark.usefixtures("driven")
class TestFpga(Float32Contract):
    implementation = fpga
    config = fpga.Config()
    numel = 9_001  # more than a tile of every engine; C-simulation takes its time for each element

    def test_more_than_a_launch_may_take_is_several_of_them(
        self, driven: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fpga, "PART_OF_MEMORY", driven.board.ddr.bytes // (16 * 100))
        flats = [torch.randn(250).bfloat16() for _ in range(3)]
        with recorded(driven) as launches:
            out = self.reduce(flats, torch.full((250,), torch.nan), 0.5)
        assert len(launches) == 3  # 100 elements a launch
        assert torch.equal(out, (flats[0].float() + flats[1] + flats[2]) * 0.5)


def test_what_the_kernel_cannot_do_is_named() -> None:
    assert "dtype float64" in fpga.unsupported(BucketSpec("pack", 1, dtype="float64"))[0]
    assert "not on cuda" in fpga.unsupported(BucketSpec("reduce", 1, device="cuda"))[0]


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_the_op_runs_on_the_board_that_is_asked_for(driven: Driver) -> None:
    flats, out = [torch.arange(5.0), torch.ones(5)], torch.empty(5)
    with recorded(driven) as launches:
        torch.ops.accelops.bucket_reduce_(flats, out, 0.5, target="fpga")
    assert torch.equal(out, (torch.arange(5.0) + 1) / 2)
    assert [launch.kernel for launch in launches] == ["reduce"]
