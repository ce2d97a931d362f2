"""Two processes, as their users start them: an emulated board behind PYNQ.remote's services in one, a deployment through the
real pynq client in the other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from accelops import deploy

pytest.importorskip("pynq")
pytest.importorskip("grpc")

STARTING_SECONDS, DEPLOYING_SECONDS = 240, 240
ACCELOPS = (sys.executable, "-W", "ignore", "-m", "accelops", "fpga")


@pytest.fixture(scope="module", params=["pynq-z2", "zcu104"])
def board(request, tmp_path_factory) -> Iterator[tuple[str, int]]:
    """Name and port of a board that another process emulates."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    command = [*ACCELOPS, "emulate", "--board", request.param, "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    starting = threading.Timer(STARTING_SECONDS, process.kill)
    starting.start()
    try:
        announced = process.stdout.readline()
        starting.cancel()
        assert announced, "the emulator ended, or did not start in time"
        yield request.param, json.loads(announced)["port"]
    finally:
        starting.cancel()
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Real images' sizes, few channels: what C-simulation does in a second. Not trained."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 1), nn.ReLU()]
    layers += [nn.Flatten(), nn.Linear(16 * 8 * 8, 10)]
    path = tmp_path_factory.mktemp("program") / "cnn.pt2"
    deploy.save(deploy.export(nn.Sequential(*layers).eval(), (torch.zeros(2, 3, 32, 32),)), path)
    return path


def deployed(archive, name: str, port: int, *more: str) -> subprocess.CompletedProcess[str]:
    options = ["--board", name, "--host", "127.0.0.1", "--port", str(port), "--calibration", "64", "--points", "100"]
    command = [*ACCELOPS, "deploy", str(archive), *options, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEPLOYING_SECONDS)


def test_a_model_is_deployed_on_a_board_in_another_process(board, archive):
    name, port = board
    done = deployed(archive, name, port, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["exact"] and told["emulated"] and told["where"] == f"127.0.0.1:{port}"
    assert list(told["differing"]) == ["0", "3", "6", "9"]
    report = told["report"]
    assert report["board"] == name and report["accuracy"]["images"] == 450
    assert told["cycles_reported"] == sum(row["cycles"] for row in report["layers"])
    assert report["frames_per_second"] == pytest.approx(2 / sum(row["seconds"] for row in report["layers"]))


def test_an_address_where_nothing_answers_exits_1(archive):
    done = deployed(archive, "pynq-z2", 1)
    assert done.returncode == 1 and "no board answers" in done.stderr and "Traceback" not in done.stderr
