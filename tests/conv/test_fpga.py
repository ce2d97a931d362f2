"""The engine of a board obeys the contract, on boards that are emulated in this process; and how it uses the board."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import accelops
from accelops.kernels.conv import fpga
from accelops.kernels.conv.fpga import engine, resident
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import ConvSpec
from accelops.targets.fpga.driver import Driver
from accelops.targets.fpga.emulator.faults import parse
from accelops.targets.fpga.errors import BoardHung
from accelops.targets.fpga.gradients import Sides, weight_plan

from ..fpga.driven import BOARDS, recorded
from .contract import BY_NAME, ConvContract, Operands, results

SPEC = BY_NAME["2d"].spec(bias=True)


@pytest.mark.parametrize("driven", BOARDS, indirect=True)
@pytest.mark.usefixtures("driven")
class TestFpga(ConvContract):
    implementation = fpga

    @pytest.fixture(autouse=True)
    def _sampled(self, request: pytest.FixtureRequest) -> None:
        """All Specs are tried once, on one board. Otherwise one of each case, others every time: the larger board's array
        makes eight times the products, most of them, in cases as small as these, of padding, which C-simulation takes its
        time for; a wire takes 5 ms a launch."""
        everything = "test_every_direction_matches_fp64_in_both_memory_formats"
        self.sampled = request.node.originalname != everything or request.node.callspec.params["driven"] != "pynq-z2"

    def supported(self, specs: Iterator[ConvSpec]) -> list[ConvSpec]:
        served = super().supported(specs)
        return random.sample(served, min(1, len(served))) if self.sampled else served

    def assert_same_on_every_thread_count(self, config: fpga.Config, spec: ConvSpec, given: Operands) -> None:
        """Threads take part in packing at most; two runs agree to the last bit."""
        torch.set_num_threads(3)
        one, two = (results(fpga, config, spec, given) for _ in range(2))
        assert all(map(torch.equal, one, two)), (config, spec)

    @pytest.mark.parametrize("direction", ["fprop", "dgrad", "wgrad"])
    def test_what_is_more_than_memory_takes_comes_in_parts(
        self, direction: str, driven: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted = []
        for most in (2**20, 2_000):
            monkeypatch.setattr(engine, "PART_OF_MEMORY", driven.board.ddr.bytes // most)
            with recorded(driven) as launches:
                self.check(BY_NAME["2d channels of whole 16 bytes"].spec(direction))
            counted.append(len(launches))
        assert counted[0] < counted[1]

    def test_a_sum_that_does_not_fit_the_chip_is_made_in_parts(self, driven: Driver) -> None:
        words = driven.board.sizes["conv_fp32"]["input_words"]
        far = next(d for d in range(1, words) if (2 * d + 1) ** 2 > words)
        deep = driven.board.sizes["conv_fp32"]["inputs"] * (words // 9) + 1
        apart = ConvSpec("fprop", (1, 2, 5, 6), (3, 2, 3, 3), (1, 1), (far, far), (far, far), bias=True)
        columns = ConvSpec("fprop", (1, 1, 1, words + 2), (2, 1, 1, 2), (1, 1), (0, 0), (1, words), bias=True)
        many = ConvSpec("fprop", (1, deep, 3, 3), (2, deep, 3, 3), (1, 1), (0, 0), (1, 1), bias=True)
        for spec in (apart, columns, many):
            for activation in ("none", "relu"):
                with recorded(driven) as launches:
                    self.check(replace(spec, activation=activation))
                assert len(launches) > 1


def run(spec: ConvSpec, *given: torch.Tensor | None) -> torch.Tensor:
    made = fpga.run(fpga.Config(), spec, *given)
    return made[0] if isinstance(made, tuple) else made


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
class TestWeightsThatStay:
    def test_they_are_sent_once(self, driven: Driver) -> None:
        x, w, b = operands(SPEC)
        run(SPEC, x, w, b)
        before = driven.moved.flushed
        run(SPEC, x, w, b)
        again = driven.moved.flushed - before
        run(SPEC, x, w.clone(), b)
        assert driven.moved.flushed - before - again > again  # others have to be sent

    def test_what_changes_them_is_seen(self, driven: Driver) -> None:
        x, w, b = operands(SPEC)
        for change in (
            lambda: w.mul_(2),
            lambda: w.data.neg_(),
            lambda: w.numpy().__setitem__(0, 3.0),
            lambda: w.zero_(),
            lambda: w.fill_(torch.nan),
        ):
            change()
            torch.testing.assert_close(run(SPEC, x, w, b), torch.conv2d(x, w, b, padding=1), equal_nan=True)

    def test_they_go_with_their_tensor(self, driven: Driver) -> None:
        gc.collect()
        kept = resident.on(driven)
        before = kept.nbytes
        x, w, b = operands(SPEC)
        run(SPEC, x, w, b)
        assert kept.nbytes > before
        del w
        assert kept.nbytes == before

    def test_another_tensor_in_the_same_place_has_its_own(self, driven: Driver) -> None:
        x, w, b = operands(SPEC)
        view = w.detach()
        run(SPEC, x, view, b)
        del view
        w.data.mul_(3)
        torch.testing.assert_close(run(SPEC, x, w.detach(), b), torch.conv2d(x, w, b, padding=1))

    def test_they_take_a_bounded_part_of_memory_the_oldest_going_first(self, driven: Driver) -> None:
        w = operands(SPEC)[1]
        one = resident.Resident(driven)
        many = [w.clone() for _ in range(4)]
        one._most = 3 * one.weights(many[0], (), many[0], lambda: many[0]).nbytes
        buffers = [one.weights(t, (), t, lambda t=t: t) for t in many[:3]]
        assert one.weights(many[0], (), many[0], pytest.fail) is buffers[0]  # used again, so no longer the oldest
        one.weights(many[3], (), many[3], lambda: many[3])
        assert one.nbytes <= one._most
        assert one.weights(many[0], (), many[0], pytest.fail) is buffers[0]
        repacked = []
        one.weights(many[1], (), many[1], lambda: repacked.append(many[1]) or many[1])
        assert repacked


@pytest.mark.parametrize("driven", BOARDS, indirect=True)
def test_the_gradient_of_the_weight_makes_the_launches_that_are_planned(driven: Driver) -> None:
    spec = BY_NAME["2d strided"].spec("wgrad")
    (n, c, *_), (k, _, *taps) = spec.input, spec.weight
    plan = weight_plan(driven.board.name, Sides(n, c, k, *spec.output[2:], *taps, *spec.stride, *spec.dilation))
    with recorded(driven) as launches:
        run(spec, *operands(spec))
    assert tuple(launch.estimate for launch in launches) == plan.estimates


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_each_group_is_a_launch(driven: Driver) -> None:
    spec = BY_NAME["2d grouped"].spec()
    with recorded(driven) as launches:
        run(spec, *operands(spec))
    assert len(launches) == spec.groups


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_relu_and_bias_cost_no_pass_of_the_host(driven: Driver) -> None:
    spec = replace(SPEC, activation="relu")
    given = operands(spec)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run(spec, *given)
    assert not {"aten::relu", "aten::relu_", "aten::add_"} & {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_the_pool_gets_back_what_a_call_has_used(driven: Driver) -> None:
    w = operands(SPEC)[1]
    held = set()
    for direction in ("fprop", "dgrad", "wgrad") * 2:
        spec = replace(SPEC, direction=direction)
        first, second, third = operands(spec)
        run(spec, first, second if direction == "wgrad" else w, third)
        held.add(driven.held)
    assert max(held) - min(held) <= resident.on(driven).nbytes


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_a_board_that_hangs_is_not_replaced_by_the_cpu(driven: Driver) -> None:
    layer = torch.nn.Conv2d(3, 4, 3)
    driven.link.machine.faults.add(parse("hang"))
    with accelops.enabled(), accelops.use("fpga"), pytest.raises(BoardHung, match="conv_fp32 did not finish"):
        layer(torch.randn(1, 3, 5, 5))
    with accelops.enabled(), accelops.use("fpga"):
        x = torch.randn(1, 3, 5, 5)
        torch.testing.assert_close(layer(x), torch.conv2d(x, layer.weight, layer.bias))


def test_what_the_engine_cannot_do_is_named() -> None:
    for spec, words in (
        (replace(SPEC, dtype="bfloat16"), "dtype bfloat16"),
        (replace(SPEC, dtype="complex64"), "dtype complex64"),
        (replace(SPEC, device="cuda"), "not on cuda"),
        (BY_NAME["3d"].spec(), "3D"),
    ):
        assert words in "; ".join(fpga.unsupported(spec))


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_an_emulated_board_is_never_chosen_for_speed(driven: Driver) -> None:
    (selection,) = accelops.explain(SPEC).selections
    assert selection.target != "fpga"
    assert "emulated" in selection.reasons["fpga"][0]
