"""accelops.functional against torch.nn.functional: values, gradients, errors, and torch's transforms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from accelops import TargetUnavailable, functional, use
from accelops.dispatch.conv import ACTIVATION_FUNCTIONS

# name, input, weight, options
CASES: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("conv1d", (2, 6, 17), (6, 1, 5), {"padding": "same", "groups": 6}),
    ("conv1d", (2, 4, 17), (6, 4, 4), {"padding": "same", "dilation": 3}),
    ("conv1d", (4, 17), (6, 4, 3), {"padding": [1]}),
    ("conv2d", (2, 16, 9, 11), (16, 1, 3, 3), {"padding": 1, "groups": 16}),
    ("conv2d", (2, 3, 9, 11), (8, 3, 3, 4), {"padding": "same"}),
    ("conv2d", (3, 9, 11), (8, 3, 3, 3), {"stride": (2, 1), "padding": "valid"}),
    ("conv2d", (0, 3, 9, 11), (8, 3, 3, 3), {}),
    ("conv3d", (2, 4, 5, 6, 7), (4, 1, 3, 3, 3), {"padding": 1, "groups": 4}),
    ("conv_transpose1d", (2, 4, 9), (4, 3, 3), {"stride": 2, "output_padding": 1}),
    ("conv_transpose2d", (4, 9, 8), (4, 3, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": 2}),
    ("conv_transpose3d", (2, 4, 4, 5, 3), (4, 1, 3, 3, 2), {"groups": 2}),
]


def operands(name: str, input: tuple[int, ...], weight: tuple[int, ...], groups: int) -> list[Tensor]:
    seed = torch.seed() % 2**31
    print(f"seed {seed}")
    torch.manual_seed(seed)
    channels = weight[1] * groups if "transpose" in name else weight[0]
    return [torch.randn(shape, requires_grad=True) for shape in (input, weight, (channels,))]


def results(function: Any, tensors: list[Tensor], grad: Tensor | None, **options: Any) -> list[Tensor]:
    output = function(*tensors, **options)
    grad = torch.ones_like(output) if grad is None else grad.to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, tensors, grad)]


@pytest.mark.parametrize("activation", ["none", "relu", "silu", "gelu"])
@pytest.mark.parametrize(("name", "input", "weight", "options"), CASES)
def test_values_and_gradients_stay_within_torchs_error(
    name: str, input: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], activation: str
) -> None:
    tensors = operands(name, input, weight, options.get("groups", 1))

    def torchs(*arguments: Tensor, **options: Any) -> Tensor:
        return ACTIVATION_FUNCTIONS[activation](getattr(F, name)(*arguments, **options))

    grad = torch.randn_like(torchs(*tensors, **options))
    exact = results(torchs, [t.detach().double().requires_grad_() for t in tensors], grad, **options)
    theirs = results(torchs, tensors, grad, **options)
    ours = results(getattr(functional, name), tensors, grad, activation=activation, **options)
    for a, b, truth in zip(ours, theirs, exact, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.numel():
            allowed = 2 * (b - truth).abs().max() + 4 * torch.finfo(torch.float32).eps * truth.abs().max()
            assert (a - truth).abs().max() <= allowed


@pytest.mark.parametrize(
    ("name", "shapes", "options"),
    [
        ("conv2d", [(2, 3, 5, 5), (4, 2, 3, 3), (4,)], {}),
        ("conv2d", [(2, 3, 5, 5), (4, 3, 3, 3), (5,)], {}),
        ("conv2d", [(2, 3, 5, 5), (4, 3, 7, 7), (4,)], {}),
        ("conv2d", [(3, 5), (4, 3, 3, 3), (4,)], {}),
        ("conv2d", [(2, 3, 5, 5), (4, 3, 3, 3), (4,)], {"stride": 0}),
        ("conv2d", [(2, 3, 5, 5), (4, 3, 3, 3), (4,)], {"padding": "same", "stride": 2}),
        ("conv2d", [(2, 3, 5, 5), (4, 3, 3, 3), (4,)], {"padding": "full"}),
        ("conv1d", [(2, 3, 5), (4, 3, 3), (4,)], {"groups": 2}),
        ("conv_transpose2d", [(2, 3, 5, 5), (3, 4, 3, 3), (4,)], {"output_padding": 2}),
    ],
)
def test_errors_are_torchs(name: str, shapes: list[tuple[int, ...]], options: dict[str, Any]) -> None:
    tensors = [torch.ones(s) for s in shapes]
    with pytest.raises(Exception) as theirs:
        getattr(torch, name)(*tensors, **options)
    with pytest.raises(type(theirs.value)) as ours:
        getattr(functional, name)(*tensors, **options)
    assert str(ours.value) == str(theirs.value)


def test_mixed_dtypes_raise_torchs_error() -> None:
    x, w = torch.ones(1, 3, 5, 5), torch.ones(4, 3, 3, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError) as theirs:
        F.conv2d(x, w)
    with pytest.raises(RuntimeError) as ours:
        functional.conv2d(x, w)
    assert str(ours.value) == str(theirs.value)


def test_an_unknown_activation_and_an_absent_target_are_named() -> None:
    x, w = torch.ones(1, 3, 5, 5), torch.ones(4, 3, 3, 3)
    with pytest.raises(ValueError, match="conv2d: activation='tanh'"):
        functional.conv2d(x, w, activation="tanh")
    with pytest.raises(TargetUnavailable):
        functional.conv2d(x, w, target="nowhere")


def test_a_named_target_serves() -> None:
    x, w = torch.randn(1, 3, 5, 5), torch.randn(4, 3, 3, 3)
    for target in ("reference", "aten"):
        torch.testing.assert_close(functional.conv2d(x, w, target=target), F.conv2d(x, w))


def test_a_subclass_sees_the_call() -> None:
    class Seen(Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            return "seen", function

    answer = functional.conv2d(torch.ones(1, 3, 5, 5).as_subclass(Seen), torch.ones(4, 3, 3, 3))
    assert answer == ("seen", functional.conv2d)


def depthwise(x: Tensor, w: Tensor) -> Tensor:
    return functional.conv2d(x, w, padding=1, groups=16, activation="silu")


def torchs_depthwise(x: Tensor, w: Tensor) -> Tensor:
    return F.silu(F.conv2d(x, w, padding=1, groups=16))


def test_transforms_give_what_torch_gives() -> None:
    x, w = torch.randn(3, 2, 16, 7, 7), torch.randn(16, 1, 3, 3)
    torch.testing.assert_close(torch.vmap(depthwise, (0, None))(x, w), torch.vmap(torchs_depthwise, (0, None))(x, w))
    grads = [torch.func.grad(lambda w, f=f: f(x[0], w).sum())(w) for f in (depthwise, torchs_depthwise)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)
    tangents = [torch.func.jvp(lambda w, f=f: f(x[0], w), (w,), (w,))[1] for f in (depthwise, torchs_depthwise)]
    torch.testing.assert_close(*tangents)


def test_double_backward_is_right() -> None:
    x, w = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((1, 16, 4, 4), (16, 1, 3, 3)))
    assert torch.autograd.gradgradcheck(depthwise, (x, w))


def test_autocast_casts_as_torch_does() -> None:
    x, w = torch.randn(2, 16, 7, 7), torch.randn(16, 1, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise(x, w).dtype is torchs_depthwise(x, w).dtype is torch.bfloat16


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile_takes_it_whole(backend: str) -> None:
    with use("aten"):
        pass  # what is kept of it must not break the graph
    x, w = torch.randn(2, 16, 7, 7, requires_grad=True), torch.randn(16, 1, 3, 3, requires_grad=True)
    compiled = torch.compile(depthwise, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(x, w), torchs_depthwise(x, w))
    torch.testing.assert_close(torch.autograd.grad(compiled(x, w).sum(), w), torch.autograd.grad(torchs_depthwise(x, w).sum(), w))  # fmt: skip


def test_export_takes_it() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor, w: Tensor) -> Tensor:
            return depthwise(x, w)

    x, w = torch.randn(2, 16, 7, 7), torch.randn(16, 1, 3, 3)
    torch.testing.assert_close(torch.export.export(Net(), (x, w)).module()(x, w), torchs_depthwise(x, w))
