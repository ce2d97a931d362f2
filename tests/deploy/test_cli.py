"""`accelops fpga deploy`, and the demo's --export: JSON alone on stdout, exit codes, messages without tracebacks."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from accelops import cli, data, demo, deploy
from accelops.deploy.engine import OnBoard
from accelops.targets import fpga
from accelops.targets.fpga.errors import BoardHung


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


@cache
def model() -> nn.Module:
    """For the digits, with weights that nobody trained: both accuracies are those of chance."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.Flatten(), nn.Linear(72, 10)]
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    deploy.save(deploy.export(model(), (torch.zeros(2, 3, 32, 32),)), path)
    return path


@pytest.fixture
def board(emulated_board, monkeypatch):
    """An emulated pynq-z2 in this process, at whatever address is asked for."""
    driver = emulated_board("pynq-z2")
    monkeypatch.setattr(fpga, "connect", lambda host, port, board=None, overlays=None: driver)
    with fpga.on(driver):
        yield driver


QUICK = ("--calibration", "64", "--points", "100")


def test_it_ends_with_accuracy_layers_and_modelled_frames(board, archive):
    result = invoke("fpga", "deploy", str(archive), *QUICK, "--host", "127.0.0.1", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["exact"] and told["passed"] and told["emulated"] and told["images"] == 2 and told["launches"] == 3
    assert told["differing"] == {"0": 0, "2": 0, "4": 0}
    assert told["measured_seconds"] is None, "an emulated board's time is its simulator's"
    report = told["report"]
    assert report["evidence"] == "modelled" and report["batch"] == 2 and report["frames_per_second"] > 0
    assert told["cycles_reported"] == sum(row["cycles"] for row in report["layers"])
    accuracy = report["accuracy"]
    assert accuracy["images"] == 450 and accuracy["change"] == pytest.approx(accuracy["int8"] - accuracy["fp32"])


def test_it_reads_as_a_table_and_finds_the_board_in_use(board, archive):
    result = invoke("fpga", "deploy", str(archive), *QUICK, "--images", "1", "--clip", "99.9")
    assert result.exit_code == 0, result.output
    for words in (
        "modelled, not measured",
        "frames/s modelled",
        "accuracy on 450 images",
        "equal the reference to the bit",
    ):
        assert words in result.stdout
    assert "measured:" not in result.stdout


def test_a_board_that_computes_otherwise_exits_1_and_the_layer_is_named(board, archive, monkeypatch):
    def wrong(self, packed, y, sizes, right=OnBoard.fetch):
        return right(self, packed, y, sizes) + (packed.layer.name == "2")

    monkeypatch.setattr(OnBoard, "fetch", wrong)
    result = invoke("fpga", "deploy", str(archive), *QUICK)
    assert result.exit_code == 1 and "2: " in result.stdout and "integers are not the reference's" in result.stdout


def test_accuracy_that_is_lost_exits_1(board, archive, monkeypatch):
    from accelops.deploy import report

    accuracy = report.Accuracy(450, 98.0, 96.5)
    monkeypatch.setattr(report, "_accuracy", lambda *_: accuracy)
    result = invoke("fpga", "deploy", str(archive), "--calibration", "64")
    assert result.exit_code == 1 and "int8 loses more than 1 points of accuracy" in result.stdout


def test_a_board_that_fails_exits_1_with_its_words(board, archive, monkeypatch):
    def hang(*_, **__):
        raise BoardHung("conv_int8 did not finish")

    monkeypatch.setattr(board, "run", hang)
    result = invoke("fpga", "deploy", str(archive), *QUICK)
    assert result.exit_code == 1 and "conv_int8 did not finish" in result.stderr and "Traceback" not in result.stderr


def test_a_model_for_a_fixed_number_of_images_runs_with_as_many(board, tmp_path, monkeypatch):
    digits = data.load("digits")
    few = replace(digits, test=(digits.test[0][:11], digits.test[1][:11]))
    monkeypatch.setattr(data, "load", lambda *_: few)
    program = torch.export.export(model(), (torch.zeros(3, 3, 32, 32),))
    deploy.save(program, tmp_path / "three.pt2")
    result = invoke("fpga", "deploy", str(tmp_path / "three.pt2"), *QUICK, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["images"] == 3 and told["report"]["accuracy"]["images"] == 9, "two are left over"
    few = invoke("fpga", "deploy", str(tmp_path / "three.pt2"), "--calibration", "2")
    assert few.exit_code == 2 and "exported for 3 images at a time" in " ".join(few.stderr.split())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--board", "kv260"], "--board=kv260, but in process is a pynq-z2"),
        (["--board", "pynq-z9"], "is not described"),
        (["--data", "mnist"], "choose digits or cifar10"),
        (["--clip", "middle"], "choose max, mse or a percentile"),
        (["--clip", "0"], "choose 'max', 'mse' or a percentile"),
        (["--on-host", "9"], "names no layer of the model; its layers are 0, 2, 4"),
    ],
)
def test_unusable_options_exit_2(board, archive, change, words):
    result = invoke("fpga", "deploy", str(archive), *QUICK, *change)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split()) and "Traceback" not in result.stderr


def test_models_that_cannot_be_deployed_exit_2_with_the_reasons(board, tmp_path):
    path = tmp_path / "model.pt2"
    missing = invoke("fpga", "deploy", str(path))
    assert missing.exit_code == 2 and "No such file" in missing.stderr
    path.write_bytes(b"no program")
    broken = invoke("fpga", "deploy", str(path))
    assert broken.exit_code == 2 and "is no archive" in " ".join(broken.stderr.split())
    up = nn.Sequential(nn.ConvTranspose2d(3, 2, 2), nn.Conv2d(2, 1, 1)).eval()
    deploy.save(deploy.export(up, (torch.zeros(2, 3, 32, 32),)), path)
    refused = invoke("fpga", "deploy", str(path))
    assert refused.exit_code == 2 and "0: a transposed convolution" in " ".join(refused.stderr.split())
    other = nn.Conv2d(1, 1, 1).eval()
    deploy.save(deploy.export(other, (torch.zeros(2, 1, 8, 8),)), path)
    shapes = invoke("fpga", "deploy", str(path))
    assert shapes.exit_code == 2 and "expected (" in shapes.stderr


def test_a_layer_runs_on_the_host_where_that_is_asked(board, archive):
    result = invoke("fpga", "deploy", str(archive), *QUICK, "--on-host", "0", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["report"]["layers"]
    assert [row["where"] for row in rows] == ["host, as asked", "board", "board, raw sums"]


def test_without_pynq_or_a_board_it_says_what_to_do(archive, monkeypatch):
    monkeypatch.delenv("PYNQ_REMOTE_DEVICES", raising=False)
    result = invoke("fpga", "deploy", str(archive))
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert "pip install 'accelops[fpga]'" in said or "PYNQ_REMOTE_DEVICES" in said


def test_the_demo_exports_its_cnn_for_any_number_of_images(tmp_path, monkeypatch):
    from types import SimpleNamespace

    trained = demo.network()
    outcome = SimpleNamespace(
        trainings={"torch": SimpleNamespace(model=trained)}, to_dict=lambda: {"losses_agree": True}, losses_agree=True
    )
    monkeypatch.setattr(demo, "run", lambda *_: outcome)
    path = tmp_path / "cnn.pt2"
    result = invoke("demo", "--export", str(path), "--json")
    assert result.exit_code == 0, result.output
    program = deploy.load(path)
    for images in (1, 3):
        x = torch.randn(images, 3, 32, 32)
        torch.testing.assert_close(program.module()(x), trained.eval()(x))
    nowhere = invoke("demo", "--export", str(tmp_path / "none" / "cnn.pt2"))
    assert nowhere.exit_code == 2 and "there is no folder" in " ".join(nowhere.stderr.split())
