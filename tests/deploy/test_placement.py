"""What stays on the board, in which form, and with which scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accelops import deploy
from accelops.deploy.graph import Layer, export, network
from accelops.deploy.packing import packed_image, read_form, unpacked_image, written_form
from accelops.deploy.program import Convolve, Download, Upload
from accelops.deploy.reference import Reference
from accelops.targets.fpga import boards


def compiled(model: nn.Module, x: Tensor, board: str = "pynq-z2", **options):
    return deploy.compile(model.eval(), (x,), board, **{"calibration": [x], "clip": "max", **options})


def layer(channels: int, features: int, groups: int, taps: int = 1) -> Layer:
    model = nn.Conv2d(channels, features, taps, groups=groups).eval()
    return network(export(model, (torch.zeros(2, channels, taps, taps),))).layers[0]


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 2)

    def forward(self, x):
        return self.two(nn.functional.max_pool2d(self.one(x), 2))


def test_pooling_on_the_host_rounds_nothing_a_second_time():
    torch.manual_seed(0)
    module = compiled(Pooled(), torch.randn(3, 2, 8, 8), clip=90)  # by itself the pooled values' would be another
    one, two = (step.packed.layer for step in module.program.steps if isinstance(step, Convolve))
    assert two.source_scale == one.scale
    seen, placed = {}, []

    class Placing(Reference):
        def place(self, image, form):
            placed.append(image)
            return super().place(image, form)

    x = torch.randn(2, 2, 8, 8)
    module.program.run(Placing(), (x,), lambda packed, y: seen.__setitem__(packed.layer.name, y))
    pooled = torch.nn.functional.max_pool2d(seen["one"].double(), 2)
    assert torch.equal(placed[1].double(), pooled)


class Averaged(Pooled):
    def forward(self, x):
        return self.two(nn.functional.avg_pool2d(self.one(x), 2))


def test_what_makes_new_values_gets_a_scale_of_its_own():
    torch.manual_seed(0)
    module = compiled(Averaged(), torch.randn(3, 2, 8, 8))
    one, two = (step.packed.layer for step in module.program.steps if isinstance(step, Convolve))
    assert two.source_scale < one.scale


def test_ranges_are_those_of_all_calibration_data():
    torch.manual_seed(0)
    small, large = torch.rand(2, 3), torch.full((1, 3), -2.54)
    for calibration in ([small, large], [large, small]):
        module = compiled(nn.Linear(3, 2), small, calibration=calibration)
        (convolve,) = (step for step in module.program.steps if isinstance(step, Convolve))
        assert convolve.packed.layer.source_scale == pytest.approx(0.02)


def test_calibration_that_saw_zeros_alone_still_gives_a_scale():
    module = compiled(nn.Linear(3, 2), torch.zeros(2, 3))
    assert torch.isfinite(module.reference(torch.ones(1, 3))).all()


def test_a_relu_at_the_end_is_the_boards_and_the_result_is_not_raw():
    torch.manual_seed(0)
    x = torch.randn(4, 3)
    module = compiled(nn.Sequential(nn.Linear(3, 9), nn.ReLU()), x)
    (convolve,) = (step for step in module.program.steps if isinstance(step, Convolve))
    assert not convolve.packed.layer.raw and float(module.reference(x).min()) == 0.0


class Across(nn.Module):
    """A linear map over the columns of a convolution's images: neighbours that see different images."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.columns = nn.Conv2d(2, 4, 1), nn.Linear(4, 6)

    def forward(self, x):
        return self.columns(self.convolution(x))


def test_neighbours_that_see_different_images_cross_by_the_host():
    torch.manual_seed(0)
    model, x = Across(), torch.randn(2, 2, 4, 4)
    module = compiled(model, x)
    assert [type(step) for step in module.program.steps] == [Upload, Convolve, Download] * 2
    with torch.no_grad():
        torch.testing.assert_close(module.reference(x), model(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("board", boards.names())
@pytest.mark.parametrize("shape", [(3, 20, 1), (64, 64, 64), (40, 40, 40), (12, 24, 4), (200, 100, 2), (5, 5, 5)])
def test_images_come_back_from_either_form(board, shape):
    described, own = boards.board(board), layer(*shape)
    word = described.sizes["conv_int8"]["inputs"] // described.sizes["conv_int8"]["outputs"]
    for form, channels in ((read_form(own, described), shape[0]), (written_form(own, described), shape[1])):
        assert form.channels == channels and form.blocks % word == 0
        assert len(set(form.places.tolist())) == channels
        assert int(form.places[-1]) < form.blocks * described.sizes["conv_int8"]["outputs"]
        image = torch.randint(-128, 128, (2, channels, 3, 2), dtype=torch.int8)
        packed = packed_image(image, form, described)
        assert torch.equal(unpacked_image(packed, form), image)
        assert np.count_nonzero(packed) == int(image.count_nonzero())


@pytest.mark.parametrize("driven", ["zcu104"], indirect=True)
def test_a_result_has_the_blocks_that_its_reader_reaches_for(driven):
    """A word of zcu104 is two blocks: the last launch of a depthwise layer reads one block beyond the last channel."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 2, groups=64)), torch.randn(1, 3, 3, 3)
    module = compiled(model, x, "zcu104")
    first, second = (step.packed for step in module.program.steps if isinstance(step, Convolve))
    assert second.source == first.result and first.result.blocks == 4
    assert (
        read_form(second.layer.layer, second.board).blocks == 4
        and written_form(first.layer.layer, first.board).blocks == 2
    )
    assert module.verify(driven, x).exact
    module.forget()


def test_one_layer_under_two_names_is_two_layers():
    shared = nn.Conv2d(2, 2, 1)
    module = compiled(nn.Sequential(shared, shared), torch.randn(2, 2, 3, 3))
    assert [own.name for own in module.placement.layers] == ["0", "1"]
    assert [type(step) for step in module.program.steps] == [Upload, Convolve, Convolve, Download]
