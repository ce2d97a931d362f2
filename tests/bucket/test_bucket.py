"""accelops.distributed.Bucket and BucketSpec."""

from __future__ import annotations

import threading

import pytest
import torch

from accelops.dispatch.select import select, use
from accelops.distributed import Bucket, pack
from accelops.kernels.bucket.operands import operands
from accelops.kernels.bucket.spec import BucketSpec
from accelops.targets import TargetUnavailable


@pytest.mark.parametrize("wire", [torch.float32, torch.bfloat16, torch.float16])
def test_a_bucket_carries_its_tensors_there_and_back(wire: torch.dtype) -> None:
    given = [
        torch.randn(4, 5),
        torch.randn(0),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(7),
    ]
    expected = [(t * 0.5).to(wire).float() * 2 for t in given]
    bucket = Bucket(given, wire)
    assert bucket.flat.dtype == wire and bucket.flat.numel() == 123 and bucket.residual is None
    assert bucket.pack(0.5) is bucket.flat
    for view, tensor in zip(bucket.views(), given, strict=True):
        assert torch.equal(view, (tensor * 0.5).to(wire)) and view.shape == tensor.shape
    bucket.unpack(2.0)
    for tensor, wanted in zip(given, expected, strict=True):
        assert torch.equal(tensor, wanted)


def test_error_feedback_sends_later_what_rounding_lost() -> None:
    value = torch.full((1000,), 1 + 2.0**-10)  # bf16 alone would send 1.0 for ever
    bucket = Bucket([value], torch.bfloat16, error_feedback=True)
    mean = sum(bucket.pack().double() for _ in range(256)) / 256
    assert (mean - value).abs().max() < 1e-4


def test_new_memory_under_the_same_tensors_is_found() -> None:
    tensor = torch.randn(100)
    bucket = Bucket([tensor])
    bucket.pack()
    tensor.data = torch.randn(100)
    assert torch.equal(bucket.pack(), tensor)


def test_an_empty_bucket() -> None:
    bucket = Bucket([])
    assert bucket.pack().numel() == 0 and bucket.unpack() == []


def test_buckets_of_several_threads_do_not_meet() -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        given = [torch.full((n,), float(seed)) for n in (70_000, 3, 200_000)]
        bucket = Bucket(given, torch.bfloat16)
        for step in range(20):
            if not bucket.pack(step).eq(seed * step).all():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("spec", "flops", "bytes"),
    [
        (BucketSpec("pack", 100, 3, wire_dtype="bfloat16"), 100, 600),
        (BucketSpec("pack", 100, 3, wire_dtype="bfloat16", error_feedback=True), 300, 1400),
        (BucketSpec("unpack", 100, 3, dtype="float16"), 100, 600),
        (BucketSpec("reduce", 100, wire_dtype="bfloat16", ranks=4), 400, 1200),
    ],
)
def test_specs_go_to_json_and_back_and_count_their_work(spec: BucketSpec, flops: int, bytes: int) -> None:
    assert BucketSpec.from_json(spec.to_json()) == spec and hash(BucketSpec.from_json(spec.to_json())) == hash(spec)
    assert (spec.flops, spec.bytes) == (flops, bytes)


@pytest.mark.parametrize("tensors", [0, 1, 3, 100])
@pytest.mark.parametrize("direction", ["pack", "unpack"])
def test_operands_for_tuning_fit_their_spec(direction: str, tensors: int) -> None:
    spec = BucketSpec(direction, 100 * bool(tensors), tensors, "mixed", "bfloat16")
    found = operands(spec)
    given, flat = found[:2] if direction == "pack" else found[1::-1]
    assert len(given) == tensors and sum(t.numel() for t in given) == flat.numel() == spec.numel
    select(spec).run(*found)


def test_a_target_asked_for_by_name_serves_or_says_why_not() -> None:
    with use("cpu"), pytest.raises(TargetUnavailable, match="float64"):
        pack([torch.ones(4, dtype=torch.float64)], torch.empty(4))
    assert torch.equal(pack([torch.ones(4, dtype=torch.float64)], torch.empty(4)), torch.ones(4))
    with pytest.raises(TargetUnavailable, match="no_such"):
        pack([torch.ones(4)], torch.empty(4), target="no_such")
