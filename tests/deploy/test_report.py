"""The report adds up, says what crosses, and its cycles are those that an emulated board reports."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from accelops import data, demo, deploy
from accelops.targets.fpga import boards

from ..fpga.driven import BOARDS
from .models import Mobile, Residual, Several, built, program


def compiled(kind, board: str = "pynq-z2", images: int = 2):
    _, inputs = built(kind, images=images)
    return inputs, deploy.compile(program(kind), inputs, board, calibration=[inputs])


@pytest.mark.parametrize("driven", BOARDS, indirect=True)
@pytest.mark.parametrize("kind", [Residual, Mobile])
def test_the_cycles_are_those_that_the_board_reports(kind, driven):
    inputs, module = compiled(kind, driven.board.name)
    report = module.report()
    verified = module.verify(driven, *inputs)
    module.forget()
    assert sum(row.cycles for row in report.layers) == verified.cycles
    assert sum(row.launches for row in report.layers) == verified.launches


@pytest.mark.parametrize("driven", ["pynq-z2"], indirect=True)
def test_bytes_that_cross_are_those_of_the_buffers(driven):
    inputs, module = compiled(Mobile)
    crossed = module.report().crossings
    module(*inputs)  # the weights are there now
    flushed, fetched = driven.moved.flushed, driven.moved.fetched
    module(*inputs)
    moved = driven.moved.flushed - flushed, driven.moved.fetched - fetched
    module.forget()
    page = 4096  # the pool's smallest buffer
    assert crossed.uploads == 2 and crossed.upload_bytes <= moved[0] <= max(2 * page, 1.2 * crossed.upload_bytes)
    assert crossed.downloads == 2 and crossed.download_bytes <= moved[1] <= max(2 * page, 1.2 * crossed.download_bytes)


def test_sums_and_efficiency_follow_from_the_layers():
    _, module = compiled(Residual)
    report = module.report()
    board = boards.board("pynq-z2")
    assert report.seconds == pytest.approx(sum(row.seconds for row in report.layers))
    assert report.frames_per_second == pytest.approx(2 / report.seconds)
    stem = report.layers[0]
    products = 2 * 20 * 5 * 4 * 3 * 9
    assert stem.sizes == (2, 20, 5, 4)
    assert stem.dsp_efficiency == pytest.approx(products / (stem.seconds * board.clock_mhz * 1e6 * 256))
    assert all(0 < row.dsp_efficiency <= 1 and 0 <= row.error < 0.1 for row in report.layers)
    assert report.host_operators == {"add": 2, "relu": 1, "mean": 1}


def test_a_larger_batch_is_modelled_to_serve_more_images_a_second():
    _, module = compiled(Residual)
    few, many = module.report(batch=1), module.report(batch=8)
    assert (few.batch, many.batch) == (1, 8) and many.frames_per_second > few.frames_per_second
    assert many.layers[0].sizes == (8, 20, 5, 4)


def test_a_report_reads_and_is_json_and_says_what_is_modelled():
    _, module = compiled(Several)
    report = module.report()
    told = json.loads(json.dumps(report.to_dict()))
    assert told["evidence"] == "modelled" and [row["name"] for row in told["layers"]] == ["shared", "shared:2"]
    text = str(report)
    assert "modelled, not measured" in text and "shared:2" in text and "frames/s modelled" in text


def test_accuracy_needs_class_scores_and_images():
    _, module = compiled(Residual)
    with pytest.raises(ValueError, match="evaluation holds no images"):
        module.report(evaluation=[])
    with pytest.raises(ValueError, match="one row of class scores"):
        module.report(evaluation=[(torch.randn(2, 3, 9, 8), torch.zeros(3, dtype=torch.long))])


def halved(images: data.Images) -> data.Images:
    """Every other pixel: the digits were repeated four times in each direction."""
    (train, labels), (test, test_labels) = images.train, images.test
    return replace(images, train=(train[..., ::2, ::2], labels), test=(test[..., ::2, ::2], test_labels), shift=1)


def test_int8_keeps_the_accuracy_of_a_trained_network_within_a_point():
    """A CNN like the demo's, with BatchNorm, on the digits; both accuracies on all test images."""
    torch.manual_seed(0)
    images = halved(data.load("digits"))
    layers: list[torch.nn.Module] = []
    for channels, wider in ((3, 8), (8, 16), (16, 32)):
        layers += [torch.nn.Conv2d(channels, wider, 3, padding=1), torch.nn.BatchNorm2d(wider)]
        layers += [torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(32 * 2 * 2, 10))
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    training = demo.Training(demo.SCRIPTS["torch"], model, adam, torch.optim.lr_scheduler.StepLR(adam, 1))
    for epoch in range(2):
        training.epoch(data.batches(images, 64, epoch), lambda loss: None)
    model.eval()
    calibration = images.train[0][:128].split(64)
    test = list(zip(*(part.split(225) for part in images.test), strict=True))
    for clip in ("max", "mse"):
        module = deploy.compile(model, (images.test[0][:2],), calibration=calibration, clip=clip)
        accuracy = module.report(evaluation=test).accuracy
        assert accuracy.images == 450 and accuracy.fp32 > 85
        assert abs(accuracy.change) <= 1.0, clip
        with torch.no_grad():
            right = sum(int((model(x).argmax(1) == y).sum()) for x, y in test)
        assert accuracy.fp32 == pytest.approx(100 * right / 450)
