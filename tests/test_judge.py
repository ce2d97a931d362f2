"""The judge of kernels: what error it allows, that it passes what is right, and that it sees what is wrong."""

from __future__ import annotations

from importlib import import_module
from math import inf

import pytest
import torch

from accelops import judge
from accelops.bench import suites
from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.bucket.spec import BucketSpec


@pytest.mark.parametrize(
    ("off", "of_torch", "rounding", "share"),
    [
        (2.0, 1.0, 0.0, 1.0),
        (2.0, 1.0, 4.0, 0.5),
        (3.0, 1.0, 0.0, 1.5),
        (0.0, 0.0, 0.0, 0.0),
        (float("nan"), 1.0, 0.0, inf),
    ],
)
def test_what_is_allowed_is_twice_torchs_error_or_what_rounding_makes(off, of_torch, rounding, share):
    exact = torch.zeros(3, dtype=torch.float64)
    actual, torchs = torch.tensor([0.0, off, 0.0]), torch.tensor([of_torch, 0.0, 0.0])
    assert judge.share_of_allowed([actual], [torchs], [exact], rounding) == share


def test_an_error_where_none_is_allowed_and_a_lost_value_are_wrong():
    zero, one = torch.zeros(1), torch.ones(1)
    assert judge.share_of_allowed([one], [zero], [zero.double()], 0.0) == inf
    assert judge.share_of_allowed([one * inf], [one], [one.double()], 0.0) == inf


@pytest.mark.parametrize("op", ["conv", "adam", "bucket"])
def test_every_config_of_the_cpu_target_is_judged_right_and_a_broken_one_wrong(op, monkeypatch):
    spec = {
        "conv": next(c.spec for c in suites.conv_cases("mobilenet_v3", 1) if "depthwise" in c.name),
        "adam": AdamSpec(1003, 3, "bfloat16", master=True, ema=True),
        "bucket": BucketSpec("pack", 1003, 3, wire_dtype="bfloat16", error_feedback=True),
    }[op]
    module = import_module(f"accelops.kernels.{op}.cpu")
    verdicts = list(judge.every_config(spec, "cpu", seed=1))
    assert [config for config, _ in verdicts] == module.configs(spec)
    assert all(share <= 1 for _, share in verdicts)

    def none(*arguments):
        raise RuntimeError("no run")

    monkeypatch.setattr(module, "run", none)
    assert {why for _, why in judge.every_config(spec, "cpu", seed=1)} == {"RuntimeError: no run"}
    if op != "conv":
        monkeypatch.setattr(module, "run", lambda *arguments: None)  # leaves all as it was
        assert all(share > 1 for _, share in judge.every_config(spec, "cpu", seed=1))
