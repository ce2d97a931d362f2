"""ConvSpec says of a problem what torch says of it: shape, flops; and survives JSON."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from accelops.kernels.conv.spec import ConvSpec


@st.composite
def specs(draw: st.DrawFn) -> ConvSpec:
    """Valid forward problems of 1 to 3 dimensions."""
    n = draw(st.integers(1, 3))
    several = {"min_size": n, "max_size": n}
    kernel, stride, dilation = (tuple(draw(st.lists(st.integers(1, 3), **several))) for _ in range(3))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(n))
    size = tuple(
        max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 4))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    groups, c, k = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    transposed = draw(st.booleans())
    if transposed:  # large enough for any padding
        size = tuple(s + 6 for s in size)
    return ConvSpec(
        direction="fprop",
        input=(draw(st.integers(0, 2)), groups * c, *size),
        weight=(groups * c, k, *kernel) if transposed else (groups * k, c, *kernel),
        stride=stride,
        padding=padding,
        dilation=dilation,
        transposed=transposed,
        output_padding=tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        if transposed
        else (),
        groups=groups,
        bias=draw(st.booleans()),
        memory_format=draw(st.sampled_from(["contiguous", "channels_last"])) if n > 1 else "contiguous",
    )


settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def by_torch(spec: ConvSpec) -> torch.Tensor:
    input, weight = (torch.empty(shape, device="meta") for shape in (spec.input, spec.weight))
    parameters = (spec.stride, spec.padding, spec.dilation, spec.transposed, spec.output_padding or (0,) * spec.ndim)
    return torch.ops.aten.convolution.default(input, weight, None, *parameters, spec.groups)


@given(specs())
def test_json_there_and_back(spec: ConvSpec) -> None:
    assert ConvSpec.from_json(spec.to_json()) == spec


@given(specs())
def test_the_output_has_torchs_shape(spec: ConvSpec) -> None:
    assert spec.output == tuple(by_torch(spec).shape)


@given(specs())
def test_flops_are_torchs(spec: ConvSpec) -> None:
    with FlopCounterMode(display=False) as counter:
        by_torch(spec)
    # torch's counter leaves the division of the channels among groups to the weight's shape, as ConvSpec does.
    assert spec.flops == counter.get_total_flops()


@pytest.mark.parametrize("text", ["[]", "{}", '{"direction": "fprop", "nonsense": 1}', json.dumps({"input": [1]})])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ConvSpec"):
        ConvSpec.from_json(text)
