"""Benchmarks: the networks' shapes, how ratios follow from times, that the call which is timed is torch's, and the reports.
Nothing here judges a time."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial
from math import prod

import pytest
import torch
from rich.console import Console

from accelops import TargetUnavailable
from accelops.bench import adam, bucket, conv, fused, overhead, report, roofline, rows, run, suites, tuning
from accelops.dispatch.conv import accepted

CEILINGS = roofline.Ceilings(copy=1e9, peak={"float32": 1e11, "bfloat16": 2e11})


def weights(network: str) -> int:
    return sum(prod(layer.spec(1, "fprop").weight) for layer in suites.NETWORKS[network][0]())


def multiply_adds(network: str) -> int:
    return sum(layer.spec(1, "fprop").flops // 2 for layer in suites.NETWORKS[network][0]())


def test_resnet50_has_the_known_parameters_and_multiply_adds():
    shapes = suites.resnet50_parameters()
    assert (len(shapes), sum(map(prod, shapes))) == (161, 25_557_032)
    assert multiply_adds("resnet50") + 2048 * 1000 == pytest.approx(4.09e9, rel=0.01)


def test_resnext50_has_the_known_multiply_adds():
    assert multiply_adds("resnext50") + 2048 * 1000 == pytest.approx(4.23e9, rel=0.01)


def test_mobilenet_v3_has_the_known_multiply_adds():
    classifier = 960 * 1280 + 1280 * 1000
    assert multiply_adds("mobilenet_v3") + classifier == pytest.approx(217e6, rel=0.02)


def test_unet3d_has_the_parameters_that_its_paper_counts():
    norms = sum(2 * layer.k for layer in suites.unet3d() if layer.kernel == 3)
    biases = sum(layer.k for layer in suites.unet3d())
    assert weights("unet3d") + norms + biases == pytest.approx(19_069_955, rel=0.001)


def test_x3d_has_the_multiply_adds_and_parameters_that_its_paper_counts():
    norms = sum(2 * layer.k for layer in suites.x3d() if not layer.bias)
    biases = sum(layer.k for layer in suites.x3d() if layer.bias)
    classifier = 432 * 2048 + 2048 * 400 + 400
    assert weights("x3d") + norms + biases + classifier == pytest.approx(3.76e6, rel=0.02)
    assert multiply_adds("x3d") == pytest.approx(4.73e9, rel=0.02)


def test_convnext_and_conformer_have_the_known_depthwise_layers():
    assert sum(layer.groups > 1 for layer in suites.convnext()) == 18
    assert sum(layer.groups > 1 for layer in suites.conformer()) == 16 + 16 + 17


@pytest.mark.parametrize("network", suites.NETWORKS)
def test_torch_takes_every_case_and_only_first_layers_lack_a_dgrad(network):
    cases = suites.conv_cases(network, batch=2)
    assert all(accepted(case.spec) and case.spec.input[0] == 2 for case in cases)
    layers = list(suites.NETWORKS[network][0]())
    for direction in ("fprop", "dgrad", "wgrad"):
        met = sum(case.multiplicity for case in cases if case.spec.direction == direction)
        assert met == sum(not (layer.first and direction == "dgrad") for layer in layers)


def test_a_row_compares_the_calls_as_called_and_the_best_of_both_sides():
    spec = suites.conv_cases("cifar", 1)[0].spec
    times = {
        "torch": [8.0, 8.0],
        "accelops": [4.0, 4.0],
        "torch channels_last": [3.0, 3.0],
        "accelops channels_last": [2.0, 2.0],
        "peer": [5.0, 5.0],
    }
    found = rows.row("layer", "fprop", times, [], spec, CEILINGS)
    assert (found.ratio_vs_torch, found.ratio_vs_torch_best) == (2.0, 1.5)
    assert found.best == {"torch": "torch channels_last", "accelops": "accelops channels_last"}
    assert found.ratio_vs_peers == {"peer": 2.5}
    assert found.percent_of_copy_bandwidth == pytest.approx(100 * spec.bytes / 2 / 1e9)
    assert found.percent_of_matrix_peak == pytest.approx(100 * spec.flops / 2 / 1e11)
    assert not found.loss and replace(found, ratio_vs_torch_best=0.9).loss


def test_means_weigh_by_multiplicity():
    def row(ratio, multiplicity):
        return rows.row("r", "fprop", {"torch": [ratio], "accelops": [1.0]}, [], multiplicity=multiplicity)

    result = run.Result("s", {}, CEILINGS, (row(4.0, 1), row(1.0, 3)), ())
    means = result.geometric_means()["ratio_vs_torch"]
    assert means == {"unweighted": pytest.approx(2.0), "weighted": pytest.approx(2**0.5), "total": pytest.approx(7 / 4)}


def test_ceilings_are_measured_and_positive(monkeypatch):
    monkeypatch.setitem(roofline.SIZES, "cpu", roofline.Size(1 << 12, 8, 1, 2, 3))
    found = roofline.measure(seconds=0.0)
    assert found.copy > 0 and set(found.peak) == {"float32", "bfloat16"} and min(found.peak.values()) > 0


@pytest.mark.parametrize("network", ["convnext", "unet3d", "conformer"])
def test_the_timed_call_computes_what_autograd_computes(network):
    """Also of transposed and 1D layers."""
    layers = {layer.transposed: layer for layer in suites.NETWORKS[network][0]() if not layer.first}
    for layer in layers.values():
        small = replace(layer, c=layer.c // layer.groups * 2, k=layer.k // layer.groups * 2, size=9, bias=True)
        layer = replace(small, groups=2) if layer.groups > 1 else replace(small, c=3, k=4)
        spec = layer.spec(2, "fprop")
        input, weight, bias = (t.requires_grad_() for t in conv.operands(spec))
        grad_output = conv.operands(replace(spec, direction="dgrad"))[0]
        forward = conv.call(spec)()
        name = f"conv_transpose{spec.ndim}d" if spec.transposed else f"conv{spec.ndim}d"
        options = {"stride": spec.stride, "padding": spec.padding, "groups": spec.groups}
        expected = getattr(torch.nn.functional, name)(input, weight, bias, **options)
        grads = torch.autograd.grad(expected, (input, weight, bias), grad_output)
        torch.testing.assert_close(forward, expected.detach())
        torch.testing.assert_close(conv.call(layer.spec(2, "dgrad"))()[0], grads[0])
        torch.testing.assert_close(conv.call(layer.spec(2, "wgrad"))()[1:], grads[1:])


def test_a_conv_row_tells_the_target_that_was_asked_for(monkeypatch):
    depthwise = next(
        job
        for job in conv.jobs("convnext", rows.Setting(batch=1, target="cpu"))
        if job.name == "depthwise 7x7 768@7 fprop"
    )
    row = depthwise.measure(CEILINGS, 0.0)
    assert {(line["variant"], line["target"], line["source"]) for line in row.ran} == {
        ("accelops", "cpu", "asked"),
        ("accelops channels_last", "cpu", "asked"),
    }
    assert set(row.milliseconds) == {"torch", "accelops", "torch channels_last", "accelops channels_last"}


def test_an_unsupported_case_is_left_to_dispatch_when_a_target_is_asked_for():
    dense = next(
        job for job in conv.jobs("cifar", rows.Setting(batch=1, target="cpu")) if job.name == "3x3 128->256@8 fprop"
    )
    assert {line["target"] for line in dense.measure(CEILINGS, 0.0).ran} == {"aten"}


def test_adam_rows_have_torchs_default_and_fused_steps(monkeypatch):
    tiny = adam.Problem("tiny", ((3, 5), (7,)), "AdamW", {"weight_decay": 0.1}, peer=False)
    monkeypatch.setattr(adam, "problems", lambda device: [tiny])
    row = adam.jobs(rows.Setting())[0].measure(CEILINGS, 0.0)
    assert set(row.milliseconds) == {"torch", "torch fused", "accelops"}
    assert [line["op"] for line in row.ran] == ["adam"]
    assert row.percent_of_copy_bandwidth > 0


def test_both_of_torchs_ways_to_bucket_do_what_the_op_does(monkeypatch):
    monkeypatch.setattr(bucket, "resnet50_parameters", lambda: ((3, 4), (5,), (2, 3)))
    torchs = {"pack": bucket._torch_pack, "unpack": bucket._torch_unpack, "reduce": bucket._torch_reduce}
    for _, spec in bucket.specs():
        written = {"pack": 1, "unpack": 1, "reduce": 1}[spec.direction]
        results = []
        for way in (
            lambda *a, d=spec.direction: torchs[d](*a),
            lambda *a, s=spec: bucket.aten.run(bucket.aten.Config(), s, *a),
            getattr(torch.ops.accelops, f"bucket_{spec.direction}_"),
        ):
            operands = bucket._operands(spec)
            way(*operands)
            results.append(operands[written])
        torch.testing.assert_close(results[0], results[1])
        torch.testing.assert_close(results[0], results[2])


def test_overhead_is_measured_against_a_process_of_stock_torch(monkeypatch):
    monkeypatch.setattr(overhead, "FEWEST_BLOCKS", 3)
    monkeypatch.setattr(overhead, "BLOCK", 2)
    measured = {job.name: job.measure(CEILINGS, 0.0) for job in overhead.jobs(rows.Setting())[1:3]}
    assert [line["target"] for line in measured["fallen back backward"].ran] == ["aten", "aten"]
    assert [line["target"] for line in measured["selected forward"].ran] == ["cpu"]
    assert all(row.extra_microseconds is not None for row in measured.values())


@pytest.fixture(scope="module")
def result() -> run.Result:
    return run.run("cifar", 0.0, rows.Setting(batch=1), match="64->128")


def test_a_result_is_json_with_its_evidence(result):
    known = json.loads(json.dumps(result.to_dict()))
    assert known["evidence"]["kind"] == "measured" and known["evidence"]["threads"] == torch.get_num_threads()
    assert {"device", "versions", "date", "command"} <= set(known["evidence"])
    assert [row["direction"] for row in known["rows"]] == ["fprop", "dgrad", "wgrad"]
    assert all(row["ratio_vs_torch"] > 0 and row["ratio_vs_torch_best"] > 0 for row in known["rows"])


def test_the_table_shows_every_row_and_the_ceilings(result):
    console = Console(width=160, file=io.StringIO())
    report.show(result, console)
    text = console.file.getvalue()
    assert text.count("3x3 64->128@16") >= 3 and "measured ceilings" in text and "unweighted" in text


def test_the_roofline_is_a_png(result, tmp_path):
    report.picture(result, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no rows"):
        report.picture(replace(result, rows=()), tmp_path / "none.png")


def test_what_cannot_be_run_is_refused_by_name():
    with pytest.raises(ValueError, match=r"suite='alexnet' is unknown; choose one of adam"):
        run.run("alexnet")
    with pytest.raises(ValueError, match="match='7x7' fits none of"):
        run.run("cifar", match="7x7")
    with pytest.raises(TargetUnavailable, match="gpu"):
        run.run("cifar", 0.0, rows.Setting(batch=1, target="gpu"), match="3->64")


def test_a_setting_says_what_it_cannot_be():
    with pytest.raises(ValueError, match="device='gpu' is unknown; choose cpu, or cuda"):
        rows.Setting("gpu")
    with pytest.raises(ValueError, match="dtype='int8' is not measured; choose one of float32"):
        rows.Setting(dtype="int8")


def test_a_fused_row_asks_for_the_activation_in_every_direction_and_computes_what_torch_does():
    setting = rows.Setting(batch=1)
    row = fused.jobs(setting)[-1].measure(CEILINGS, 0.0)
    assert row.name == "depthwise 7x7 96@56 gelu" and row.direction == "training"
    assert set(row.milliseconds) == {"torch", "accelops", "torch channels_last", "accelops channels_last"}
    assert [line["variant"] for line in row.ran] == ["accelops"] * 3 + ["accelops channels_last"] * 3
    spec = next(s for s in fused.specs(setting) if s.input[1] == 240 and s.direction == "fprop")
    theirs, ours = (fused.call(spec, f, "training")() for f in (fused._by_torch, partial(fused._by_accelops, None)))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_tuning_knows_the_specs_that_a_suite_asks_for():
    specs = tuning.specs("fused", rows.Setting(batch=1))
    assert {(s.direction, s.activation) for s in specs} >= {("fprop", "relu"), ("dgrad", "silu"), ("wgrad", "gelu")}
    assert all(s.bias == (s.direction != "dgrad") and s.input[0] == 1 for s in specs)
    assert {s.dtype for s in tuning.specs("cifar", rows.Setting(dtype="bfloat16"))} == {"bfloat16"}
