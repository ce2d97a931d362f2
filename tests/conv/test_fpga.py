"""The engine of a board obeys the contract, on boards that are emulated in this process; and how it uses the board."""

from __future__ import annotations

import gc
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

import accelops
from accelops.kernels.conv import fpga
from accelops.kernels.conv.fpga import engine, resident
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import ConvSpec
from accelops.targets.fpga import on
from accelops.targets.fpga.boards import board
from accelops.targets.fpga.driver import Driver
from accelops.targets.fpga.emulator.faults import parse
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.errors import BoardHung, BoardMemoryExhausted
from accelops.targets.fpga.gradients import Sides, weight_plan

from ..fpga import launching
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

    def test_taps_too_far_apart_for_the_chip_are_folded_into_channels(self, driven: Driver) -> None:
        words = driven.board.sizes["conv_fp32"]["input_words"]
        channels = driven.board.sizes["conv_fp32"]["inputs"]  # a whole word, so that folding saves none
        far = next(d for d in range(1, words) if (2 * d + 1) ** 2 > words)
        apart = ConvSpec("fprop", (1, channels, 5, 6), (3, channels, 3, 3), (1, 1), (far, far), (far, far), bias=True)
        columns = ConvSpec("fprop", (1, channels, words + 2), (2, channels, 2), (1,), (0,), (words,), bias=True)
        for spec in (apart, columns):
            for direction in ("fprop", "dgrad", "wgrad"):
                self.check(replace(spec, direction=direction, bias=direction != "dgrad"))

    @pytest.mark.parametrize("activation", ["none", "relu"])
    def test_channels_that_do_not_fit_the_chip_are_summed_in_parts(self, activation: str, driven: Driver) -> None:
        array = driven.board.sizes["conv_fp32"]
        deep = array["inputs"] * (array["input_words"] // 9 + 1)
        with recorded(driven) as launches:
            self.check(
                ConvSpec(
                    "fprop", (1, deep, 3, 3), (2, deep, 3, 3), (1, 1), (0, 0), (1, 1), bias=True, activation=activation
                )
            )
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


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_weights_that_stay_make_room_where_memory_is_short() -> None:
    """Beside what a call needs, 80 KiB take a few of them. Where what a call needs does not fit into all of it, it says so."""
    x, w, b = operands(SPEC)
    layers = [w * factor for factor in range(1, 9)]
    with launching.driving(Machine(board("pynq-z2"), cma_bytes=80 * 1024), "in process") as driver, on(driver):
        for layer in layers:
            torch.testing.assert_close(run(SPEC, x, layer, b), torch.conv2d(x, layer, b, padding=1))
        assert 0 < resident.on(driver).nbytes < sum(layer.nbytes for layer in layers)
        with pytest.raises(BoardMemoryExhausted, match="no memory for a buffer"):
            run(replace(SPEC, input=(20, *SPEC.input[1:])), x.repeat(10, 1, 1, 1), w, b)


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_each_group_is_a_launch(driven: Driver) -> None:
    spec = BY_NAME["2d grouped"].spec()
    with recorded(driven) as launches:
        run(spec, *operands(spec))
    assert len(launches) == spec.groups


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_few_channels_are_folded_with_taps_into_fewer_products(driven: Driver) -> None:
    """7x7 taps over 3 channels: 49 words of 8 with 3 in use; by columns, 7 times 3 words with 21 of 24."""
    spec = ConvSpec("fprop", (1, 3, 20, 20), (8, 3, 7, 7), (2, 2), (3, 3), (1, 1))
    (x, w, _), blocks, weight_beats = operands(spec), 2, 16
    with recorded(driven) as launches:
        torch.testing.assert_close(run(spec, x, w, None), torch.conv2d(x, w, None, 2, 3), rtol=1e-4, atol=1e-4)
    (launch,) = launches
    (tiles,), (trips,) = launch.estimate.trips["schedule"], launch.estimate.trips["multiply"]
    assert trips == weight_beats * tiles + blocks * 21 * 10 * 10


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


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
def test_threads_share_a_board_and_its_memory_for_weights(driven: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident.on(driven), "_most", 2_000)  # too little for two of them

    def works(_: int) -> bool:
        x, *weights = (torch.randn(2, 8, 5, 5), *(torch.randn(4, 8, 3, 3) for _ in range(3)))
        with on(driven):
            pairs = [(accelops.functional.conv2d(x, w, target="fpga"), torch.conv2d(x, w)) for w in weights * 5]
        return all(torch.allclose(mine, torchs, atol=1e-4) for mine, torchs in pairs)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(works, range(4)))


@pytest.mark.parametrize("driven", BOARDS[:1], indirect=True)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_the_functional_runs_forward_and_backward_on_the_board_that_is_asked_for(
    activation: str, driven: Driver
) -> None:
    grads = {}
    for target in ("aten", "fpga"):
        x, w, b = (t.requires_grad_() for t in operands(SPEC) if t is not None)
        with recorded(driven) as launches:
            y = accelops.functional.conv2d(x, w, b, padding=1, activation=activation, target=target)
            grads[target] = torch.autograd.grad(y.square().sum(), (x, w, b))
        assert len(launches) == (3 if target == "fpga" else 0)
    for mine, torchs in zip(grads["fpga"], grads["aten"], strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-4)


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
