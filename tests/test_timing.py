"""How ratios follow from times, who takes turns with whom, and what is captured and timed on a GPU. Nothing here judges a
time."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from accelops import timing


def test_a_ratio_is_the_median_of_paired_rounds_with_its_quartiles():
    found = timing.ratio([2.0, 4.0, 60.0, 8.0, 10.0], [1.0, 2.0, 3.0, 8.0, 2.0])
    assert (found.median, found.low, found.high) == (2.0, 2.0, 5.0)


def test_interleaved_variants_take_turns_within_their_contexts():
    calls = []

    @contextmanager
    def context():
        calls.append("enter")
        yield
        calls.append("leave")

    variants = {
        "a": timing.Variant(lambda: calls.append("a"), context),
        "b": timing.Variant(lambda: calls.append("b")),
    }
    times = timing.interleaved(variants, seconds=0.0)
    assert len(times["a"]) == len(times["b"]) >= timing.FEWEST_ROUNDS
    assert all(seconds > 0 for seconds in times["a"] + times["b"])
    inside = False
    for call in calls:
        inside = {"enter": True, "leave": False}.get(call, inside)
        assert (call == "b") <= (not inside)
        assert (call == "a") <= inside


class FakeGraph:
    """Records what is run under `torch.cuda.graph`, and runs it again."""

    recording: list | None = None

    def replay(self):
        for recorded in self.runs:
            recorded()


@pytest.fixture
def gpu(monkeypatch):
    """As much of torch.cuda as timing needs, with a clock that whoever runs turns on by hand: gpu.seconds."""
    clock = SimpleNamespace(seconds=0.0)

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock.seconds

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return 1e3 * (end.at - self.at)

    @contextmanager
    def graph(of):
        FakeGraph.recording = of.runs = []
        yield
        FakeGraph.recording = None

    for name, value in {
        "Event": Event,
        "CUDAGraph": FakeGraph,
        "graph": graph,
        "Stream": Mock,
        "current_stream": Mock(),
        "stream": lambda stream: nullcontext(),
        "current_device": lambda: 0,
        "get_device_properties": lambda index: SimpleNamespace(L2_cache_size=60 << 20),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return clock


def test_a_graph_holds_every_call_once_after_a_warm_up_of_each_within_the_context(gpu):
    calls, inside = [], []

    @contextmanager
    def context():
        inside.append(True)
        yield
        inside.clear()

    def call(name):
        def run():
            calls.append((name, FakeGraph.recording is not None, bool(inside)))
            if FakeGraph.recording is not None:
                FakeGraph.recording.append(lambda: calls.append(name))

        return run

    variant = timing.captured([call("a"), call("b")], context)
    assert calls == [("a", False, True), ("b", False, True), ("a", True, True), ("b", True, True)]
    calls.clear()
    variant.run()
    assert calls == ["a", "b"] and variant.calls == 2


def test_on_a_gpu_a_call_takes_its_share_of_what_lies_between_two_events(gpu):
    def lasting(seconds):
        def run():
            gpu.seconds += seconds

        return run

    times = timing.interleaved(
        {"4": timing.Variant(lasting(4.0), calls=4), "3": timing.Variant(lasting(3.0))}, 0.0, "cuda"
    )
    assert set(times["4"]) == {1.0} and set(times["3"]) == {3.0}


@pytest.mark.parametrize(("nbytes", "sets"), [(0, 32), (1 << 20, 32), (10 << 20, 12), (1 << 30, 4)])
def test_operands_are_as_many_as_the_cache_cannot_hold(gpu, nbytes, sets):
    assert timing.copies(nbytes) == sets
