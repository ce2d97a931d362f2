"""The step on a board obeys the contract, on boards that are emulated in this process."""

from __future__ import annotations

import pytest
import torch

import accelops
from accelops.kernels.adam import fpga
from accelops.kernels.adam.spec import AdamSpec
from accelops.targets.fpga import model
from accelops.targets.fpga.driver import Driver

from ..fpga.driven import BOARDS, recorded
from .contract import AdamContract, copied, make


@pytest.mark.parametrize("driven", BOARDS, indirect=True)
@pytest.mark.usefixtures("driven")
class TestFpga(AdamContract):
    implementation = fpga

    def test_parameters_that_took_the_same_steps_are_one_launch(self, driven: Driver) -> None:
        with recorded(driven) as launches:
            self.run(make(torch.float32, steps=(3,)))
        assert [launch.kernel for launch in launches] == ["adam"]

    def test_more_than_a_launch_may_take_is_several_of_them(
        self, driven: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lists = make(torch.float32, ((9, 7), (3,), (101,)), amsgrad=True, ema=True, steps=(3,))
        want = self.run(copied(lists))
        monkeypatch.setattr(fpga, "PART_OF_MEMORY", driven.board.ddr.bytes // (20 * 40))
        with recorded(driven) as launches:
            got = self.run(lists)
        sizes = [model.adam(driven.board, numel, amsgrad=True) for numel in (40, 40, 40, 40, 7)]
        assert [launch.estimate for launch in launches] == sizes
        for name in ("params", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "emas"):
            assert all(map(torch.equal, getattr(got, name), getattr(want, name))), name

    def test_a_launch_that_fails_leaves_everything_as_it_was(
        self, driven: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lists = make(torch.float32, ((5,), (7,)), steps=(3, 4))
        before, run = copied(lists), driven.run
        launches = iter((run,))
        monkeypatch.setattr(driven, "run", lambda *args, **more: next(launches)(*args, **more))
        with pytest.raises(StopIteration):
            self.run(lists)
        for name in ("params", "exp_avgs", "exp_avg_sqs", "state_steps"):
            assert all(map(torch.equal, getattr(lists, name), getattr(before, name))), name


def test_what_the_kernel_cannot_do_is_named() -> None:
    for fields, words in (
        ({"dtype": "float64", "state_dtype": "float64"}, "dtype float64"),
        ({"state_dtype": "uint8"}, "state_dtype uint8"),
        ({"dtype": "bfloat16", "stochastic": True}, "stochastic rounding"),
        ({"device": "cuda"}, "not on cuda"),
    ):
        assert words in "; ".join(fpga.unsupported(AdamSpec(numel=1, **fields)))


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_torch_optim_steps_on_the_board_that_is_asked_for(driven: Driver) -> None:
    torch.manual_seed(0)
    kept = {}
    for target in ("aten", "fpga"):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 37))
        optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.1, amsgrad=True)
        with accelops.enabled(), accelops.use(target), recorded(driven) as launches:
            for step in range(3):
                weight.grad = torch.sin(weight.detach() * step)
                optimizer.step()
        kept[target] = weight.detach()
    assert [launch.kernel for launch in launches] == ["adam"] * 3
    torch.testing.assert_close(kept["fpga"], kept["aten"])
