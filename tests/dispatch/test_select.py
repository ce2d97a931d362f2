"""The order in which a target is chosen, and what is said about the others."""

from __future__ import annotations

import threading

import pytest
import torch

import accelops
from accelops.dispatch import tune, tuned
from accelops.dispatch.select import candidates, forget, select
from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.conv.spec import ConvSpec
from accelops.targets import TARGETS, unavailable

SPEC = ConvSpec("fprop", (1, 3, 8, 8), (4, 3, 3, 3), (1, 1), (0, 0), (1, 1))
DEPTHWISE = ConvSpec("wgrad", (8, 96, 56, 56), (96, 1, 7, 7), (1, 1), (3, 3), (1, 1), groups=96)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELOPS_CACHE", str(tmp_path))
    forget()
    yield
    tuned.reload()
    forget()


def record(spec, target, config):
    tuned.record("conv", "cpu", {spec: tuned.Entry(target, config, 2.0, torch.__version__, "2026-01-01")})
    forget()


def test_a_dense_convolution_is_left_to_torch_with_a_reason_for_every_other_candidate():
    selection = select(SPEC)
    assert (selection.target, selection.source) == ("aten", "torch")
    assert set(selection.reasons) == set(candidates("conv")) - {"aten"}
    assert all(reason for reasons in selection.reasons.values() for reason in reasons)


def test_a_heuristic_wins_over_torch():
    selection = select(DEPTHWISE)
    assert (selection.target, selection.source) == ("cpu", "heuristic")
    assert "benchmarks/results" in selection.why


def test_the_users_table_wins_over_the_heuristic():
    record(DEPTHWISE, "aten", {"type": "aten.Config"})
    selection = select(DEPTHWISE)
    assert (selection.target, selection.source) == ("aten", "tuned")
    assert set(selection.reasons) == set(candidates("conv")) - {"aten"}
    record(DEPTHWISE, "reference", {"type": "reference.Config"})
    assert select(DEPTHWISE).target == "reference"


def test_an_entry_whose_config_no_longer_exists_is_passed_over():
    record(DEPTHWISE, "reference", {"type": "reference.Config", "gone": 1})
    assert select(DEPTHWISE).source == "heuristic"


def test_use_wins_over_everything_and_ends_with_its_context():
    record(SPEC, "aten", {"type": "aten.Config"})
    with accelops.use("reference"):
        assert (select(SPEC).target, select(SPEC).source) == ("reference", "asked")
        with accelops.use("aten"):
            assert select(SPEC).target == "aten"
        assert select(SPEC).target == "reference"
    assert select(SPEC).target == "aten"


def test_an_exception_ends_use_too():
    with pytest.raises(KeyError), accelops.use("reference"):
        raise KeyError
    assert select(SPEC).source == "torch"


def test_use_is_of_its_thread_alone():
    found = []
    with accelops.use("reference"):
        thread = threading.Thread(target=lambda: found.append(select(SPEC).target))
        thread.start()
        thread.join(10)
    assert found == ["aten"]


def test_a_name_that_is_no_target_is_told_the_names():
    with pytest.raises(accelops.TargetUnavailable, match=", ".join(TARGETS)), accelops.use("gpu"):
        pass
    with pytest.raises(accelops.TargetUnavailable, match="'gpu'"):
        select(SPEC, "gpu")


@pytest.mark.parametrize("target", [t for t in TARGETS if unavailable(t)])
def test_a_target_that_is_not_there_says_so(target):
    with pytest.raises(accelops.TargetUnavailable, match=target), accelops.use(target):
        pass


def test_a_target_asked_for_by_name_that_cannot_serve_raises_its_reasons():
    import dataclasses

    spec = dataclasses.replace(SPEC, dtype="complex64")
    with pytest.raises(accelops.TargetUnavailable, match="complex64"):
        select(spec, "reference")


def test_explain_names_the_choice_and_every_reason():
    text = str(accelops.explain("conv", input=(16, 144, 56, 56), weight=(144, 1, 3, 3), groups=144, padding=1))
    for direction in ("fprop", "dgrad", "wgrad"):
        assert f"conv {direction}: " in text
    for target in candidates("conv"):
        assert target in text


def test_explain_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="choose conv, adam or bucket"):
        accelops.explain("pool")
    with pytest.raises(ValueError, match="3, 4 or 5 dimensions"):
        accelops.explain("conv", input=(1, 2), weight=(1, 2))


def test_tune_measures_what_a_model_runs_and_selects_anew():
    model = torch.nn.Sequential(torch.nn.Conv2d(32, 32, 7, padding=3, groups=32), torch.nn.ReLU())
    measured = accelops.tune(model, torch.randn(2, 32, 28, 28), seconds=0.05)
    *convolutions, step = measured
    assert {m.spec.direction for m in convolutions} == {"fprop", "wgrad"}  # the input needs no gradient
    assert step.spec == AdamSpec(numel=32 * 49 + 32, tensors=2)
    for m in measured:
        assert set(m.ratios) >= {"aten", "cpu"}
        assert select(m.spec).source == "tuned"
        assert select(m.spec).target == m.target
    assert all(p.grad is None for p in model.parameters())


def test_tune_takes_no_kernel_that_is_wrong_however_fast(monkeypatch):
    from accelops.kernels.conv import cpu

    right = tune.measure(DEPTHWISE, seconds=0.02)
    assert right.target == "cpu"
    monkeypatch.setattr(cpu, "run", lambda config, spec, *given, **options: (torch.zeros(spec.weight), None))
    with pytest.warns(UserWarning, match=r"left out, it makes .* times the error allowed"):
        measured = tune.measure(DEPTHWISE, seconds=0.02)
    assert measured.target == "aten" and measured.ratios["cpu"] > 1
