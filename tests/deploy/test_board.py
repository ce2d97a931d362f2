"""Deployed models on an emulated board: every layer's integers are numpy's and the reference's, and results are the model's."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from accelops import deploy
from accelops.deploy.engine import OnBoard
from accelops.deploy.program import Convolve, Download, Upload
from accelops.targets import TargetUnavailable, fpga
from accelops.targets.fpga.errors import BoardError

from ..fpga.driven import BOARDS
from .models import SHAPES, Mobile, Residual, Sequence, Several, built, program
from .plainly import result

ALL = pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.__name__)


@cache
def compiled(kind, board: str = "pynq-z2", **options):
    model, inputs = built(kind)
    calibration = [inputs, built(kind, seed=1, images=3)[1]]
    return model, inputs, deploy.compile(program(kind), inputs, board, calibration=calibration, **options)


class Remembering(OnBoard):
    """The board, remembering each layer with its input and its result as they lie in the board's memory."""

    def __init__(self, driver) -> None:
        super().__init__(driver)
        self.seen = []

    def convolve(self, packed, x, sizes):
        y = super().convolve(packed, x, sizes)
        n, _, h, w = sizes
        shape = (n, packed.source.blocks, h, w, self.board.sizes["conv_int8"]["outputs"])
        lying = np.moveaxis(x.read(np.int8, int(np.prod(shape))).reshape(shape), 4, 2).reshape(n, -1, h, w)
        result = self.fetch(packed, y, packed.layer.sizes(n, h, w))
        self.seen.append((packed.layer, lying[:, packed.source.places.numpy()], result.numpy()))
        return y


@pytest.mark.parametrize("driven", BOARDS, indirect=True)
@ALL
def test_every_layers_integers_are_numpys(kind, driven):
    _, inputs, module = compiled(kind, driven.board.name)
    engine = Remembering(driven)
    module.program.run(engine, inputs)
    engine.forget()
    assert len(engine.seen) == len(module.placement.layers)
    for layer, x, y in engine.seen:
        assert np.array_equal(y, result(layer, x)), layer.name


@pytest.mark.parametrize("driven", BOARDS, indirect=True)
@ALL
def test_a_board_equals_the_reference_and_nothing_stays_in_its_memory_but_weights(kind, driven):
    _, inputs, module = compiled(kind, driven.board.name)
    before = driven.held
    verified = module.verify(driven, *inputs)
    assert verified.exact and set(verified.differing) == {layer.name for layer in module.placement.layers}
    weights = driven.held - before
    again = module(*inputs)
    assert driven.held - before == weights
    torch.testing.assert_close(again, module.reference(*inputs), atol=0, rtol=0)
    torch.testing.assert_close(again, verified.outputs, atol=0, rtol=0)
    module.forget()
    assert driven.held == before


@ALL
def test_results_are_near_the_models(kind):
    model, inputs, module = compiled(kind, clip="max")
    with torch.no_grad():
        real, ours = (f(*inputs) for f in (model, module.reference))
    for key in real if isinstance(real, dict) else ["only"]:
        a, b = (v[key] if isinstance(v, dict) else v for v in (real, ours))
        assert a.shape == b.shape and a.dtype == b.dtype
        assert float((a - b).square().sum().sqrt()) < 0.03 * float(a.square().sum().sqrt())


@pytest.mark.parametrize("driven", ["pynq-z2"], indirect=True)
def test_a_wrong_integer_on_the_board_is_told_by_layer(monkeypatch, driven):
    _, inputs, module = compiled(Residual)

    def wrong(self, packed, y, sizes, right=OnBoard.fetch):
        return right(self, packed, y, sizes) + (packed.layer.name == "side")

    monkeypatch.setattr(OnBoard, "fetch", wrong)
    verified = module.verify(driven, *inputs)
    module.forget()
    assert not verified.exact
    assert {name for name, count in verified.differing.items() if count} == {"side", "head"}, (
        "it, and what is computed from it"
    )


def test_layers_that_follow_each_other_leave_nothing_to_cross():
    _, _, module = compiled(Mobile)
    kinds = [type(step) for step in module.program.steps]
    there = [Upload, Convolve, Convolve, Download]
    assert kinds == there + there, "the channels of a layer with two in and three out a group lie apart"
    _, _, module = compiled(Sequence)
    crossings = [type(s) for s in module.program.steps].count(Upload)
    assert crossings == 2, "for the first convolution and the first linear map"


def test_a_result_that_two_layers_read_is_uploaded_by_neither():
    _, _, module = compiled(Residual)
    uploads = [step.source.name for step in module.program.steps if isinstance(step, Upload)]
    assert uploads == ["x", "mean"]


@pytest.mark.parametrize("driven", ["pynq-z2"], indirect=True)
def test_a_depthwise_layer_takes_a_launch_for_a_block_and_not_for_a_channel(driven):
    _, inputs, module = compiled(Mobile)
    verified = module.verify(driven, *inputs)
    module.forget()
    assert verified.launches == 1 + 2 + 3 + 1, "24 channels in blocks of 16; 12 groups of 2 and 3, five a block; dense"


@pytest.mark.parametrize("driven", ["pynq-z2"], indirect=True)
@ALL
@pytest.mark.parametrize("images", [1, 5])
def test_another_number_of_images_is_as_good(kind, images, driven):
    _, _, module = compiled(kind)
    inputs = built(kind, seed=3, images=images)[1]
    assert module.verify(driven, *inputs).exact
    module.forget()


@pytest.mark.parametrize("driven", ["pynq-z2"], indirect=True)
@ALL
def test_no_images_give_no_results(kind, driven):
    model, _, module = compiled(kind)
    inputs = built(kind, images=0)[1]
    with torch.no_grad():
        ours, real = module(*inputs), model(*inputs)
        module.forget()
    torch.testing.assert_close(ours, real, atol=0, rtol=0)


@pytest.mark.parametrize("driven", ["zcu104"], indirect=True)
@pytest.mark.usefixtures("driven")
def test_another_type_of_board_is_refused():
    _, inputs, module = compiled(Several)
    with pytest.raises(ValueError, match="compiled for pynq-z2, the board in use is a zcu104"):
        module(*inputs)


def test_without_a_board_the_module_says_so(monkeypatch):
    monkeypatch.delenv("PYNQ_REMOTE_DEVICES", raising=False)
    _, inputs, module = compiled(Several)
    with pytest.raises(TargetUnavailable):
        module(*inputs)


@pytest.mark.parametrize("driven", ["pynq-z2"], indirect=True)
def test_a_failed_launch_gives_no_result_and_its_memory_back(monkeypatch, driven):
    _, inputs, module = compiled(Residual)
    held = driven.held
    run, launches = driven.run, []

    def failing(*args, **kwargs):
        launches.append(args)
        if len(launches) == 2:
            raise BoardError("as a test wishes")
        return run(*args, **kwargs)

    monkeypatch.setattr(driven, "run", failing)
    with pytest.raises(BoardError, match="as a test wishes") as failed:
        module(*inputs)
    assert driven.held == held, "though its traceback still holds every frame"
    assert failed.tb is not None
    torch.testing.assert_close(module(*inputs), module.reference(*inputs), atol=0, rtol=0)
    module.forget()


def test_inputs_of_other_shapes_and_types_are_refused():
    _, inputs, module = compiled(Residual)
    for wrong in (inputs[0][:, :2], inputs[0].double(), inputs[0][0]):
        with fpga.on(None), pytest.raises(ValueError, match=r"x: expected \(.*, 3, 9, 8\) torch.float32 on the CPU"):
            module.reference(wrong)
    with pytest.raises(ValueError, match="the model takes"):
        module.reference()
    with pytest.raises(ValueError, match="not finite"):
        module.reference(torch.full_like(inputs[0], float("nan")))
