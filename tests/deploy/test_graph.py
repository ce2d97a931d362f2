"""What becomes a layer, what is folded into it, and what is said about a layer that cannot run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from accelops import deploy
from accelops.deploy.graph import export, network

from .models import SHAPES, Residual, built, program


def layers_of(model: nn.Module, *shape: int):
    return network(export(model.eval(), (torch.randn(2, *shape),))).layers


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.__name__)
def test_a_network_computes_what_the_model_does(kind):
    model, _ = built(kind)
    inputs = built(kind, seed=5, images=3)[1]
    net = network(program(kind))
    with torch.no_grad():
        expected = model(*inputs)
    flat = list(expected.values()) if isinstance(expected, dict) else [expected]
    torch.testing.assert_close(list(net.run(*inputs)), flat)


def test_normalisation_and_relu_join_the_layer_before_them():
    found = {layer.name: layer for layer in network(program(Residual)).layers}
    assert list(found) == ["stem", "main", "side", "head"]
    assert [found[name].relu for name in found] == [True, False, False, False]
    model, (x,) = built(Residual)
    stem = found["stem"]
    with torch.no_grad():
        expected = model.stem_norm(model.stem(x))
        folded = nn.functional.conv2d(x, stem.weight, stem.bias, stem.stride, stem.padding)
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=1e-5)


class Forms(nn.Module):
    """A ReLU as people write it."""

    def __init__(self, form) -> None:
        super().__init__()
        self.convolution, self.form = nn.Conv2d(2, 2, 1), form

    def forward(self, x):
        return self.form(self.convolution(x)).exp()


@pytest.mark.parametrize(
    ("form", "joins"),
    [
        (nn.ReLU(inplace=True), True),
        (nn.ReLU6(), True),
        (lambda x: x.clamp(0, 3), True),
        (lambda x: x.clamp(0), True),
        (nn.Hardtanh(), False),
        (lambda x: x.clamp(-1, 1), False),
        (nn.LeakyReLU(), False),
        (lambda x: torch.relu(x) + x, False),
    ],
)
def test_a_relu_joins_in_all_its_forms_and_nothing_else_does(form, joins):
    (layer,) = layers_of(Forms(form), 2, 3, 3)
    assert layer.relu == joins


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_linear_map_is_found_in_programs_of_either_kind(decomposed):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.ReLU(), nn.Linear(4, 3, bias=False)
    ).eval()
    x = torch.randn(5, 6)
    whole = export(model, (x,))
    net = network(whole.run_decompositions() if decomposed else whole)
    first = net.layers[0]
    assert (first.kind, first.relu, tuple(first.weight.shape)) == ("linear", True, (4, 6, 1, 1))
    torch.testing.assert_close(net.run(x)[0], model(x).detach())


class Normed(nn.Module):
    """Normalised over the rows of a linear map's result, of which there are as many as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(self.linear(x))


def test_a_normalisation_of_another_dimension_stays_on_the_host():
    torch.manual_seed(0)
    model = Normed().eval()
    nn.init.uniform_(model.norm.running_mean)
    nn.init.uniform_(model.norm.weight)
    x = torch.randn(3, 5, 4)
    net = network(export(model, (x,)))
    assert len(net.layers[0].nodes) == 1 and len(net.nodes) == 3
    module = deploy.compile(model, (x,), calibration=[x])
    torch.testing.assert_close(module.reference(x), model(x).detach(), atol=0.05, rtol=0)


class Standardised(nn.Module):
    """By the statistics of the image at hand."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return nn.functional.batch_norm(self.convolution(x), x.mean((0, 2, 3)), x.var((0, 2, 3)))


def test_a_normalisation_by_the_inputs_own_statistics_stays_on_the_host():
    model, x = Standardised().eval(), torch.randn(2, 2, 3, 3)
    net = network(export(model, (x,)))
    assert len(net.layers[0].nodes) == 1
    torch.testing.assert_close(net.run(x)[0], model(x).detach())


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(x) + torch.rand(2)


def test_random_numbers_are_drawn_anew_in_each_run():
    x = torch.randn(2, 2)
    module = deploy.compile(Noisy().eval(), (x,), calibration=[x])
    assert not torch.equal(module.reference(x), module.reference(x))


def test_weights_that_are_computed_from_parameters_are_constants():
    (layer,) = layers_of(torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), 3)
    assert not layer.reasons and layer.weight.shape == (2, 3, 1, 1)


class Own(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.odd = nn.Conv2d(2, 4, 1), layer

    def forward(self, x):
        return self.odd(self.first(x))


class Filters(nn.Module):
    def forward(self, x):
        return nn.functional.conv2d(x, x[:1].mean((2, 3), keepdim=True))


REFUSED = [
    (Own(nn.ConvTranspose2d(4, 2, 2)), (2, 4, 4), "odd: a transposed convolution"),
    (Own(Filters()), (2, 4, 4), "odd: its weight is computed from the input"),
    (nn.Conv3d(1, 1, 2), (1, 3, 3, 3), "a 3D convolution"),
    (nn.Linear(140_000, 1), (140_000,), "140000 products of int8 may overflow"),
    (nn.Conv2d(4096, 1, 6), (4096, 6, 6), "one output pixel needs"),
    (nn.Conv2d(1, 1, 1).double(), (1, 2, 2), "its weight is float64, not float32"),
]


@pytest.mark.parametrize(("model", "shape", "words"), REFUSED)
def test_a_layer_that_cannot_run_is_refused_with_the_reason_and_runs_on_the_host_where_asked(model, shape, words):
    dtype = next(model.parameters()).dtype
    x = torch.randn(2, *shape, dtype=dtype)
    with pytest.raises(deploy.Unsupported, match=words) as refused:
        deploy.compile(model.eval(), (x,), calibration=[x])
    names = tuple(refused.value.reasons)
    assert len(names) == 1 and f"host={names!r}" in str(refused.value)
    module = deploy.compile(model, (x,), calibration=[x], host=names)
    assert [layer.name for layer in module.placement.host] == list(names)
    report = module.report()
    assert not {"convolution", "linear"} & set(report.host_operators), "told among the layers"
    rows = {row.name: row for row in report.layers}
    assert rows[names[0]].where == "host, as asked" and rows[names[0]].cycles is None
    if not module.placement.layers:
        torch.testing.assert_close(module.reference(x), model(x).detach(), atol=0, rtol=0)


def test_all_refused_layers_are_told_together():
    model = nn.Sequential(nn.ConvTranspose2d(1, 1, 2), nn.Conv2d(1, 1, 1), nn.ConvTranspose2d(1, 1, 2)).eval()
    x = torch.randn(2, 1, 4, 4)
    with pytest.raises(deploy.Unsupported, match="2 of the model's layers cannot run on kv260") as refused:
        deploy.compile(model, (x,), "kv260", calibration=[x])
    assert set(refused.value.reasons) == {"0", "2"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"host": ("hed",)}, r"names no layer of the model; its layers are stem, main, side, head"),
        ({"board": "pynq-z9"}, "is not described"),
        ({"clip": "middle"}, "choose 'max'"),
        ({"calibration": []}, "calibration holds no batch"),
        ({"calibration": [torch.full((1, 3, 9, 8), float("inf"))]}, "calibration: the values of x are not finite"),
        ({"calibration": [torch.zeros(1, 3, 9, 9)]}, "x: expected"),
    ],
)
def test_unusable_arguments_are_refused(change, words):
    model, inputs = built(Residual)
    with pytest.raises(ValueError, match=words):
        deploy.compile(model, inputs, **({"calibration": [inputs]} | change))


def test_a_model_in_training_is_refused():
    model, inputs = built(Residual)
    with pytest.raises(ValueError, match=r"is in training .*model.eval\(\)"):
        deploy.compile(model.train(), inputs, calibration=[inputs])
    with pytest.raises(ValueError, match="changes its own state"):
        deploy.compile(torch.export.export(model, inputs), inputs, calibration=[inputs])


def test_a_model_without_layers_is_refused():
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        deploy.compile(nn.ReLU().eval(), (x,), calibration=[x])
