"""torch.ops.accelops.bucket_*: what they accept and refuse, what autograd learns of their writes, and opcheck."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from accelops.dispatch.select import use
from accelops.distributed import Bucket, pack, reduce, unpack
from accelops.targets.triton import emulated

ops = torch.ops.accelops
DEFAULT_CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


ON_THE_CPU = pytest.mark.skipif(not emulated(), reason="these tensors are on the CPU, and Triton's kernels on the GPU")


@pytest.fixture(autouse=True, params=["cpu", "aten", pytest.param("triton", marks=ON_THE_CPU)])
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    with use(request.param):
        yield request.param


def tensors() -> list[torch.Tensor]:
    return [
        torch.randn(3, 4),
        torch.randn(5).bfloat16(),
        torch.randn(6, 6)[:, ::2],
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    ]


NUMEL = 12 + 5 + 18 + 96


@pytest.mark.parametrize("residual", [False, True])
def test_opcheck_pack(residual: bool) -> None:
    arguments = (tensors(), torch.empty(NUMEL), 0.5, torch.zeros(NUMEL) if residual else None)
    torch.library.opcheck(ops.bucket_pack_.default, arguments, test_utils=DEFAULT_CHECKS)


def test_opcheck_unpack() -> None:
    torch.library.opcheck(
        ops.bucket_unpack_.default, (torch.randn(NUMEL).half(), tensors(), 0.5), test_utils=DEFAULT_CHECKS
    )


def test_opcheck_reduce() -> None:
    flats = [torch.randn(33).bfloat16() for _ in range(3)]
    torch.library.opcheck(ops.bucket_reduce_.default, (flats, torch.empty(33), 1 / 3), test_utils=DEFAULT_CHECKS)


@pytest.mark.parametrize("backend", ["aot_eager", "eager"])
def test_a_compiled_function_packs_and_unpacks_as_eager_does(backend: str) -> None:
    def there_and_back(given: list[torch.Tensor], flat: torch.Tensor) -> list[torch.Tensor]:
        ops.bucket_pack_(given, flat, 0.5)
        back = [torch.empty_like(t) for t in given]
        ops.bucket_unpack_(flat, back, 2.0)
        return [b + 1 for b in back]

    given, flat, compiled_flat = tensors(), torch.empty(NUMEL), torch.empty(NUMEL)
    expected = there_and_back(given, flat)
    for actual, wanted in zip(
        torch.compile(there_and_back, backend=backend)(given, compiled_flat), expected, strict=True
    ):
        assert torch.equal(actual, wanted)
    assert torch.equal(flat, compiled_flat)


def test_written_tensors_say_so_to_autograd() -> None:
    weight = torch.randn(4, requires_grad=True)
    for write in (
        lambda x: pack([torch.ones(4)], x),
        lambda x: unpack(torch.ones(4), [x]),
        lambda x: reduce([torch.ones(4)], x),
        lambda x: pack([torch.ones(4)], torch.empty(4), 1.0, x),
    ):
        saved = torch.randn(4)
        loss = (weight * saved).sum()
        write(saved)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_inference_mode() -> None:
    with torch.inference_mode():
        given = [torch.randn(3), torch.randn(4)]
        flat = pack(given, torch.empty(7))
        assert torch.equal(flat, torch.cat(given))
        unpack(flat, given, 2.0)
        assert torch.equal(torch.cat(given), 2 * flat)


def test_gradients_of_parameters_are_packed_with_grad_mode_on() -> None:
    model = torch.nn.Linear(3, 2)
    model(torch.randn(5, 3)).sum().backward()
    gradients = [p.grad for p in model.parameters()]
    assert torch.equal(pack(gradients, torch.empty(8)), torch.cat([g.reshape(-1) for g in gradients]))
    with torch.no_grad():
        assert torch.equal(pack(list(model.parameters()), torch.empty(8))[:6], model.weight.reshape(-1))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "flat too short": (
        lambda: pack([torch.ones(4)], torch.empty(3)),
        r"flat has shape \(3,\).*expected a contiguous \(4,\)",
    ),
    "flat of two dimensions": (lambda: pack([torch.ones(4)], torch.empty(2, 2)), r"flat has shape \(2, 2\)"),
    "flat with gaps": (lambda: pack([torch.ones(4)], torch.empty(8)[::2]), "expected a contiguous"),
    "integer wire": (lambda: pack([torch.ones(4)], torch.empty(4, dtype=torch.int32)), "flat is torch.int32"),
    "integer tensor": (lambda: pack([torch.ones(4).int()], torch.empty(4)), r"tensors\[0\] is torch.int32"),
    "complex tensor": (lambda: unpack(torch.empty(4), [torch.ones(4).cfloat()]), "torch.complex64"),
    "sparse tensor": (lambda: pack([torch.ones(4).to_sparse()], torch.empty(4)), "to_dense"),
    "another device": (
        lambda: pack([torch.ones(2), torch.ones(2, device="meta")], torch.empty(4)),
        r"tensors\[1\] is on meta",
    ),
    "short residual": (lambda: pack([torch.ones(4)], torch.empty(4), 1.0, torch.zeros(3)), "residual has shape"),
    "bf16 residual": (
        lambda: pack([torch.ones(4)], torch.empty(4), 1.0, torch.zeros(4).bfloat16()),
        "residual is torch.bfloat16",
    ),
    "input that requires grad": (lambda: pack([torch.ones(4, requires_grad=True)], torch.empty(4)), "no_grad"),
    "output that requires grad": (lambda: unpack(torch.ones(4), [torch.ones(4, requires_grad=True)]), "no_grad"),
    "more to unpack than there is": (lambda: unpack(torch.empty(3), [torch.ones(4)]), r"flat has shape \(3,\)"),
    "expanded output": (
        lambda: unpack(torch.ones(4), [torch.ones(1).expand(4)]),
        r"of tensors\[0\] refers to a single memory",
    ),
    "overlapping windows": (lambda: unpack(torch.ones(8), [torch.ones(5).unfold(0, 2, 1)]), "single memory location"),
    "one output twice": (lambda: unpack(torch.ones(8), [torch.ones(4)] * 2), r"tensors\[0\] and tensors\[1\]"),
    "overlapping outputs": (
        lambda: unpack(torch.ones(8), [(w := torch.ones(6))[:4], torch.ones(1), w[3:]]),
        r"tensors\[0\] and tensors\[2\]",
    ),
    "crossing outputs": (
        lambda: unpack(torch.ones(8), [(w := torch.ones(4, 4))[1], w[:, 2]]),
        r"tensors\[0\] and tensors\[1\]",
    ),
    "pack into its own source": (lambda: pack([(w := torch.ones(8))[1:5]], w[:4]), "overlaps flat"),
    "unpack over its own source": (lambda: unpack((w := torch.ones(8))[:4], [w[1:5]]), "overlaps flat"),
    "reduce over part of a buffer": (lambda: reduce([(w := torch.ones(8))[1:5]], w[:4]), r"out overlaps flats\[0\]"),
    "reduce of nothing": (lambda: reduce([], torch.empty(4)), "flats is empty"),
    "reduce of different lengths": (
        lambda: reduce([torch.ones(4), torch.ones(3)], torch.empty(4)),
        r"flats\[1\] has shape",
    ),
    "reduce of different dtypes": (
        lambda: reduce([torch.ones(4), torch.ones(4).half()], torch.empty(4)),
        r"flats\[1\] is torch.float16",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(RuntimeError, match=message):
        call()


def test_outputs_that_interleave_without_meeting_are_written() -> None:
    whole = torch.full((6, 8), float("nan"))
    pieces = [whole[:, ::2], whole[:3, 1::2], whole[3:, 1::2].t()]
    flat = torch.arange(48.0)
    unpack(flat, pieces)
    assert torch.equal(torch.cat([p.reshape(-1) for p in pieces]), flat)


def test_tensors_may_lie_at_their_own_place_in_the_buffer() -> None:
    given = [torch.randn(3, 4), torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)]
    bucket = Bucket(given)
    values = bucket.pack().clone()
    pack(bucket.views(), bucket.flat, 0.5)
    assert torch.equal(bucket.flat, values * 0.5)
    unpack(bucket.flat, bucket.views(), 4.0)
    assert torch.equal(bucket.flat, values * 2)
