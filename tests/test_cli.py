"""The command line: JSON alone on stdout, exit codes, messages without tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from accelops import cli

DEPTHWISE = ["conv", "--input", "16,144,56,56", "--weight", "144,1,3,3", "--groups", "144", "--padding", "1"]


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


def test_explain_names_the_choice_and_a_reason_against_every_other_candidate():
    result = invoke("explain", *DEPTHWISE, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [line["direction"] for line in found] == ["fprop", "dgrad", "wgrad"]
    for line in found:
        others = {"reference", "cpu", "aten"} - {line["target"]}
        assert line["why"] and all(line["reasons"].get(other) for other in others - {"aten"})


def test_explain_reads_as_sentences_and_takes_every_parameter():
    result = invoke("explain", *DEPTHWISE, "--target", "cpu", "--direction", "wgrad", "--bias", "--channels-last")
    assert result.exit_code == 0 and result.stdout.startswith("conv wgrad: cpu with")
    up = ["--input", "2,8,5,6", "--weight", "8,4,3,3", "--stride", "2,1", "--transposed", "--output-padding", "1,0"]
    assert invoke("explain", "conv", *up).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["adam", "--numel", "25557032", "--tensors", "161"],
        ["bucket", "pack", "--numel", "1000000", "--wire-dtype", "bfloat16"],
    ],
)
def test_explain_of_the_other_ops(arguments):
    result = invoke("explain", *arguments, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)[0]["op"] == arguments[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "1,6,8,8", "--weight", "4,2,3,3"], "torch refuses this convolution: Given groups=1"),
        (["--input", "1,6", "--weight", "4,6"], "expected 3, 4 or 5 sizes"),
        (["--input", "1,6,eight,8", "--weight", "4,6,3,3"], "expected whole numbers"),
        (["--input", "1,6,8,8", "--weight", "4,6,3,3", "--dtype", "float31"], "--dtype='float31' is unknown"),
        (["--input", "1,6,8,8", "--weight", "4,6,3,3", "--activation", "tanh"], "choose one of none, relu"),
        (["--input", "1,6,8,8", "--weight", "4,6,3,3", "--direction", "sideways"], "choose one of fprop"),
        (["--input", "1,6,8,8", "--weight", "4,6,3,3", "--target", "gpu"], "choose one of reference, cpu"),
        (["--input", "1,6,8,8", "--weight", "4,6,3,3", "--stride", "0"], "torch refuses"),
    ],
)
def test_a_convolution_that_is_none_exits_2_with_a_reason(arguments, words):
    result = invoke("explain", "conv", *arguments)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split()) and not result.stdout


def test_info_and_verify_tell_what_is_here():
    info = json.loads(invoke("info", "--json").stdout)
    assert {"versions", "cpu", "targets", "tables", "evidence"} <= set(info) and info["targets"]["aten"] == "yes"
    assert invoke("info").exit_code == 0
    verify = invoke("verify", "--json")
    told = json.loads(verify.stdout)
    assert {(e["op"], e["target"]) for e in told["evidence"]} >= {("conv", "reference"), ("conv", "cpu")}
    assert verify.exit_code == (1 if told["missing"] else 0)


def test_bench_prints_json_writes_the_file_and_draws_the_roofline(tmp_path):
    files = ["--output", str(tmp_path / "result.json"), "--png", str(tmp_path / "roofline.png")]
    options = ["--seconds", "0", "--batch", "1", "--match", "128->256@8 fprop", "--json"]
    result = invoke("bench", "cifar", *options, *files)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told == json.loads((tmp_path / "result.json").read_text())
    assert {"ratio_vs_torch", "ratio_vs_torch_best"} <= set(told["rows"][0])
    assert (tmp_path / "roofline.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "alexnet"], "choose one of adam, bucket, fused"),
        (["demo", "--data", "cifar10", "--root", "/nonexistent"], "expected the binary version of CIFAR-10"),
        (["demo", "--batch-size", "5000"], "exceeds the 1347 training images"),
        (["tune", "nothing"], "needs --input too"),
        (["tune", "torch.nn:nothing", "--input", "1,2"], "package.module:function"),
        (["tune", "no.such.module:model", "--input", "1,2"], "No module named"),
    ],
)
def test_unusable_input_exits_2_with_a_message(arguments, words):
    result = invoke(*arguments)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split()) and "Traceback" not in result.stderr


def test_tune_measures_a_suite_and_a_model_and_writes_the_users_table(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELOPS_CACHE", str(tmp_path))
    (tmp_path / "tiny_model.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Conv2d(8, 8, 3, padding=1, groups=8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = invoke("tune", "tiny_model:build", "--input", "1,8,6,6", "--seconds", "0", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert {line["target"] for line in told} <= {"cpu", "aten"} and {"cpu", "aten"} <= set(told[0]["ratios"])
    assert list((tmp_path / "tuned" / "conv").glob("*.json"))


def test_help_is_quick_to_import_and_a_usage_error_exits_2():
    program = (
        "import sys, accelops.cli; sys.exit(any(m in sys.modules for m in ('matplotlib', 'sklearn', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    command = [sys.executable, "-m", "accelops", "explain", "conv"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2 and "Missing option" in found.stderr and "Traceback" not in found.stderr
