"""torch's own suite judges the drop-in: the OpInfo samples and error inputs of torch's convolutions, run on torch's functions
under enable() and on accelops.functional.

Every convolution is asked for from the reference, so that what is judged is not torch's kernel; complex and integer dtypes,
which it refuses, run with torch's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import OpInfo, SampleInput

import accelops
from accelops.dispatch.select import observed
from accelops.judge import share_of_allowed

CONVOLUTIONS = {op.name.rsplit(".", 1)[-1]: op for op in op_db if op.name.startswith("nn.functional.conv")}
REAL = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
PAIRS = [(name, dtype) for name, op in CONVOLUTIONS.items() for dtype in sorted(op.supported_dtypes("cpu"), key=str)]
GRADIENTS = [(name, d) for name, d in PAIRS if d in CONVOLUTIONS[name].supported_backward_dtypes("cpu")]


# How a convolution is called, and in which context.
WAYS: dict[str, tuple[Callable[[str], Callable[..., Tensor]], Callable[[], AbstractContextManager[None]]]] = {
    "rerouted": (CONVOLUTIONS.__getitem__, accelops.enabled),
    "face": (lambda name: getattr(accelops.functional, name), nullcontext),
}


@pytest.fixture(autouse=True)
def torch_again() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    accelops.disable()


def samples(op: OpInfo, dtype: torch.dtype, requires_grad: bool = False) -> list[SampleInput]:
    plain = list(op.sample_inputs("cpu", dtype, requires_grad=requires_grad))
    return plain + [sample.noncontiguous() for sample in plain]


def output_and_gradients(op: Callable[..., Tensor], sample: SampleInput) -> list[Tensor]:
    output = op(sample.input, *sample.args, **sample.kwargs)
    leaves = [
        t for t in (sample.input, *sample.args, *sample.kwargs.values()) if isinstance(t, Tensor) and t.requires_grad
    ]
    if not leaves:
        return [output]
    return [output, *torch.autograd.grad(output, leaves, torch.ones_like(output))]


def in_double(value: object) -> object:
    return value.detach().double().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value


def asked(dtype: torch.dtype):  # type: ignore[no-untyped-def]
    return accelops.use("reference") if dtype in REAL else nullcontext()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "dtype"), PAIRS)
def test_results_and_gradients_are_torchs(name: str, dtype: torch.dtype, way: str) -> None:
    op, (function, context) = CONVOLUTIONS[name], WAYS[way]
    for sample in samples(op, dtype, (name, dtype) in GRADIENTS):
        expected = output_and_gradients(op, sample)
        with context(), asked(dtype), observed() as specs:
            got = output_and_gradients(function(name), sample)
        assert specs or dtype not in REAL
        if dtype is torch.float64 or dtype not in REAL:
            torch.testing.assert_close(got, expected)
            continue
        exact = output_and_gradients(op, sample.transform(in_double))
        got, expected, exact = ([t.detach() for t in tensors] for tensors in (got, expected, exact))
        assert [(t.shape, t.dtype) for t in got] == [(t.shape, t.dtype) for t in expected], sample
        assert share_of_allowed(got, expected, exact, rounding=0.0) <= 1, sample


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradients_are_derivatives(name: str, way: str) -> None:
    op, (function, context) = CONVOLUTIONS[name], WAYS[way]
    for sample in list(op.sample_inputs("cpu", torch.float64, requires_grad=True))[:6]:
        tensors = [sample.input, *(a for a in sample.args if isinstance(a, Tensor))]
        rest = [a for a in sample.args if not isinstance(a, Tensor)]
        with context(), accelops.use("reference"):
            run = partial(_call, function(name), sample.kwargs, rest)
            assert torch.autograd.gradcheck(run, tensors, fast_mode=True)


def _call(function: Callable[..., Tensor], options: dict[str, Any], rest: list[Any], *tensors: Tensor) -> Tensor:
    return function(*tensors, *rest, **options)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_forward_mode_and_vmap_give_torchs_results(name: str) -> None:
    op = CONVOLUTIONS[name]
    for sample in op.sample_inputs("cpu", torch.float64):

        def call(x: Tensor) -> Tensor:
            return op(x, *sample.args, **sample.kwargs)  # noqa: B023

        batch, tangent = torch.stack([sample.input] * 2), torch.randn_like(sample.input)
        expected = torch.func.jvp(call, (sample.input,), (tangent,)), torch.vmap(call)(batch)
        with accelops.enabled(), accelops.use("reference"):
            got = torch.func.jvp(call, (sample.input,), (tangent,)), torch.vmap(call)(batch)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name, op in CONVOLUTIONS.items() if op.error_inputs_func])
def test_mistakes_raise_what_torch_raises(name: str, way: str) -> None:
    op, (function, context) = CONVOLUTIONS[name], WAYS[way]
    for mistake in op.error_inputs("cpu"):
        sample = mistake.sample_input
        raised = []
        for call, where in ((op, nullcontext()), (function(name), context())):
            with where, pytest.raises(mistake.error_type, match=mistake.error_regex) as info:
                call(sample.input, *sample.args, **sample.kwargs)
            raised.append((info.type, str(info.value)))
        assert raised[0] == raised[1]
