"""Scales, multipliers and integers: exact where they must be, nearest where they may round."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from accelops import deploy
from accelops.deploy.graph import export, network
from accelops.deploy.quantise import SHIFTS, fixed_point, quantised, to_int8, too_long
from accelops.deploy.ranges import Histogram, checked_clip
from accelops.deploy.reference import Reference, requantised, sums

from .models import Residual, built
from .plainly import result


def layer_of(module: nn.Module, shape: tuple[int, ...]):
    (layer,) = network(export(module.eval(), (torch.randn(2, *shape),))).layers
    return layer


@pytest.mark.parametrize("seed", range(4))
def test_a_factor_is_the_nearest_that_31_bits_give(seed):
    torch.manual_seed(seed)
    for factor in (2.0 ** torch.empty(200).uniform_(-31.9, 29).double()).tolist():
        multiplier, shift = fixed_point(factor)
        assert 2**30 <= multiplier < 2**31 and shift in SHIFTS
        error = abs(Fraction(multiplier, 2 ** (31 + shift)) - Fraction(factor))
        assert error <= Fraction(1, 2 ** (32 + shift))


def test_factors_at_the_ends_of_what_the_engine_can_shift():
    assert fixed_point(0.5) == (1 << 30, 0) and fixed_point(1.0) == (1 << 30, -1)
    assert fixed_point(1 - 2.0**-53) == (1 << 30, -1), "rounds up to a power of two"
    multiplier, shift = fixed_point(2.0**-40)
    assert Fraction(multiplier, 2 ** (31 + shift)) == Fraction(1, 2**40) and shift == 31
    assert fixed_point(2.0**-80) == (0, 31)
    with pytest.raises(ValueError, match="between the scales"):
        fixed_point(2.0**31)


def test_requantisation_rounds_half_up_and_saturates_as_python_says():
    layer = quantised(layer_of(nn.Conv2d(1, 2, 1), (1, 3, 3)), 0.1, 0.1)
    for shift in (-30, -5, 0, 7, 31):
        constants = torch.full((2,), 2**30), torch.full((2,), shift)
        layer = replace(
            layer, multiplier=constants[0].int(), shift=constants[1].int(), bias=torch.tensor([3, -4]).int()
        )
        exact = torch.randint(-(2**31), 2**31, (1, 2, 50, 4))
        exact[..., 0] = torch.arange(-25, 25)[None, None]
        ours = requantised(layer, exact)
        for at in torch.cartesian_prod(torch.arange(2), torch.arange(50), torch.arange(4)).tolist():
            total = (int(exact[0, at[0], at[1], at[2]]) + [3, -4][at[0]]) * 2**30 + 2 ** (30 + shift)
            assert int(ours[0, at[0], at[1], at[2]]) == max(-128, min(127, total // 2 ** (31 + shift)))


def test_weights_and_sums_are_within_half_a_step_of_the_folded_layer():
    """What the integers stand for, beside the model's own layers in fp64."""
    model, (x,) = built(Residual)
    module = deploy.compile(model, (x,), calibration=[x], clip="max")
    steps = {packed.layer.name: packed.layer for packed in _packed(module)}
    stem = steps["stem"]
    integers = to_int8(x, stem.source_scale)
    seen = integers.double() * stem.source_scale
    assert float((seen - x.double()).abs().max()) <= stem.source_scale / 2 * (1 + 1e-6)
    with torch.no_grad():
        real = torch.relu(model.double().stem_norm(model.stem(seen)))
    channels = stem.sum_scale.view(1, -1, 1, 1) / stem.source_scale  # of the weights
    taps = stem.weight[0].numel()
    bound = stem.scale / 2 + taps * float(seen.abs().max()) * channels / 2 + 1e-4
    assert bool(((stem.real(requantised(stem, sums(stem, integers))).double() - real).abs() <= bound).all())
    assert int(stem.weight.abs().amax()) == 127 and bool((stem.weight.flatten(1).abs().amax(1) == 127).all())


def _packed(module):
    seen = []
    module.program.run(Reference(), module.example, lambda packed, _: seen.append(packed))
    return seen


def test_a_channel_of_zeros_and_one_of_bias_alone_are_exact():
    convolution = nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        convolution.weight[0] = 0.0
        convolution.bias[0] = 0.0
        convolution.weight[1] = 0.0
        convolution.bias[1] = 1.0
        convolution.weight[2] *= 1e-12
        convolution.bias[2] = 5.0
    layer = quantised(layer_of(convolution, (2, 2, 2)), 0.05, 5 / 127)
    x = torch.randint(-128, 128, (1, 2, 2, 2), dtype=torch.int8)
    y = layer.real(requantised(layer, sums(layer, x)))
    for channel, value in enumerate((0.0, 1.0, 5.0)):
        torch.testing.assert_close(y[:, channel], torch.full((1, 2, 2), value), atol=layer.scale / 2, rtol=0)
    assert int(layer.bias.abs().max()) <= 2**30


def test_raw_sums_get_their_bias_on_the_host():
    convolution = nn.Conv2d(2, 3, 3)
    layer = quantised(layer_of(convolution, (2, 5, 5)), 0.05, None)
    x = torch.randint(-128, 128, (1, 2, 5, 5), dtype=torch.int8)
    assert torch.equal(sums(layer, x), torch.from_numpy(result(layer, x.numpy())))
    real = torch.nn.functional.conv2d(x.double() * 0.05, convolution.weight.double(), convolution.bias.double())
    real = real.detach()
    assert float((layer.real(sums(layer, x)) - real).abs().max()) < 0.05


def test_a_sum_that_might_not_fit_32_bits_is_refused_with_figures():
    assert too_long(layer_of(nn.Linear(132_104, 1), (132_104,))) is None
    assert "132105 products of int8" in too_long(layer_of(nn.Linear(132_105, 1), (132_105,)))


def test_the_clip_is_the_largest_or_the_percentile_or_the_best():
    torch.manual_seed(0)
    values = torch.randn(100_000)
    values[0] = 40.0
    histogram = Histogram(40.0)
    histogram.add(values)
    assert histogram.clip("max") == 40.0
    assert abs(histogram.clip(99) - float(values.abs().quantile(0.99))) < 0.05
    assert histogram.clip(100) == 40.0

    def error(clip: float) -> float:
        scale = clip / 127
        return float((((values / scale).round().clamp(-127, 127) * scale - values) ** 2).mean())

    best = histogram.clip("mse")
    assert error(best) < 0.7 * error(40.0)
    assert all(error(best) <= 1.02 * error(c) for c in (0.8 * best, 1.25 * best, 2 * best))


@pytest.mark.parametrize("wrong", ["percentile", 0, 101, None])
def test_an_unknown_clip_is_refused(wrong):
    with pytest.raises(ValueError, match="choose 'max', 'mse' or a percentile"):
        checked_clip(wrong)


def test_values_that_are_not_finite_have_no_integers():
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            to_int8(torch.tensor([0.0, value]), 0.1)
    assert to_int8(torch.tensor([99.0, -99.0, 0.1875, 0.3125]), 0.125).tolist() == [127, -128, 2, 2]
