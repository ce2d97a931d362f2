"""What becomes of a Triton kernel that does not compile or cannot be launched, and of a device without memory.

Kernels that fail stand in the place of real ones; the target counts as a GPU's, though the interpreter is in its place.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from accelops.dispatch import select as dispatch
from accelops.dispatch import tuned
from accelops.dispatch.select import forget, select
from accelops.distributed import pack
from accelops.kernels.bucket import cpu, triton
from accelops.kernels.bucket.spec import BucketSpec
from accelops.targets import KernelFailed
from accelops.targets.triton import architecture, emulated, launch, launching

pytestmark = pytest.mark.skipif(not emulated(), reason="the tensors are on the CPU")

TENSORS = [torch.arange(12.0).view(3, 4), torch.arange(5.0)]
PACKED = torch.cat([t.view(-1) for t in TENSORS])
SPEC = BucketSpec("pack", 17, 2)
CONFIG, ANOTHER = triton.configs(SPEC)[:2]


class Kernel:
    """A kernel whose launch raises `error`."""

    __name__ = "thing"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self

    def __call__(self, *arguments: Any, **constants: Any) -> None:
        raise self.error


@pytest.fixture(autouse=True)
def _triton_is_chosen(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ACCELOPS_CACHE", str(tmp_path))
    monkeypatch.setattr(dispatch, "_failed", {})
    monkeypatch.setattr(dispatch, "emulated", lambda target: False)
    monkeypatch.setattr(triton, "heuristic", lambda spec: (CONFIG, "measured somewhere"))
    monkeypatch.setattr(cpu, "heuristic", lambda spec: (None, "slower"))
    forget()
    yield
    tuned.reload()
    forget()


def packed(error: Exception | None = None, target: str | None = None) -> tuple[Tensor, list[str]]:
    """(the buffer, the warnings) of a pack whose launch raises `error`."""

    def fail(*arguments: Any, **constants: Any) -> None:
        if error is not None:
            raise error

    flat = torch.full((17,), float("nan"))
    with launching(fail, architecture()), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pack(TENSORS, flat, target=target)
    return flat, [str(warning.message) for warning in caught]


def test_the_fake_launcher_is_what_runs() -> None:
    flat, said = packed()
    assert flat.isnan().all() and said == []


def test_torch_runs_where_a_kernel_fails() -> None:
    flat, _ = packed(KernelFailed("move: CompilationError: too wide"))
    assert torch.equal(flat, PACKED)


def test_a_failure_is_reported_once_with_its_config_and_its_reason() -> None:
    _, said = packed(KernelFailed("move: CompilationError: too wide"))
    [message] = said
    assert f"bucket on triton: {CONFIG} failed on {tuned.device_name('cpu')}" in message
    assert "move: CompilationError: too wide" in message and "torch's own runs" in message
    for _ in range(3):
        flat, said = packed(KernelFailed("again"))
        assert said == [] and torch.equal(flat, PACKED)


def test_a_config_that_failed_is_not_launched_again_and_explain_says_so() -> None:
    packed(KernelFailed("too wide"))
    selection = select(SPEC)
    assert (selection.target, selection.source) == ("aten", "torch")
    [reason] = selection.reasons["triton"]
    assert str(CONFIG) in reason and "too wide" in reason


def test_specs_that_would_take_the_same_config_are_served_by_others_too() -> None:
    packed(KernelFailed("too wide"))
    assert select(dataclasses.replace(SPEC, numel=1000)).target == "aten"


def test_only_that_config_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    packed(KernelFailed("too wide"))
    monkeypatch.setattr(triton, "heuristic", lambda spec: (ANOTHER, "measured somewhere"))
    forget()
    selection = select(SPEC)
    assert (selection.target, selection.config) == ("triton", ANOTHER)


def test_only_on_that_device_is_it_set_aside() -> None:
    elsewhere = dataclasses.replace(SPEC, device="meta")
    packed(KernelFailed("too wide"))
    assert (select(SPEC).target, select(elsewhere).target) == ("aten", "triton")


def test_a_selection_that_others_still_hold_is_not_reported_again() -> None:
    """As when two threads launch at once, or a module keeps its Selection."""
    held, flat = select(SPEC), torch.empty(17)

    def fail(*arguments: Any, **constants: Any) -> None:
        raise KernelFailed("too wide")

    with launching(fail, architecture()), pytest.warns(UserWarning) as said:
        for _ in range(3):
            held.run(TENSORS, flat.fill_(float("nan")), 1.0, None)
            assert torch.equal(flat, PACKED)
    assert len(said) == 1


def test_an_entry_of_the_tuned_table_that_failed_is_passed_over_and_the_reason_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = tuned.Entry("triton", tuned.describe(ANOTHER), 2.0, torch.__version__, "2026-01-01")
    tuned.record("bucket", "cpu", {SPEC: entry})
    forget()
    assert (select(SPEC).source, select(SPEC).config) == ("tuned", ANOTHER)
    _, [message] = packed(KernelFailed("too wide"))
    assert str(ANOTHER) in message
    assert (select(SPEC).source, select(SPEC).config) == ("heuristic", CONFIG)
    assert "triton" not in select(SPEC).reasons
    monkeypatch.setattr(triton, "heuristic", lambda spec: (None, "not measured"))
    forget()
    assert select(SPEC).target == "aten"
    assert str(ANOTHER) in select(SPEC).reasons["triton"][0]


def test_a_target_asked_for_by_name_raises_every_time() -> None:
    for _ in range(2):
        with pytest.raises(KernelFailed, match="too wide"):
            packed(KernelFailed("too wide"), target="triton")
    assert select(SPEC).target == "triton"


def test_a_device_without_memory_raises_as_torch_does_and_nothing_is_set_aside() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="2 GiB"):
        packed(torch.OutOfMemoryError("tried to allocate 2 GiB"))
    assert select(SPEC).target == "triton"


def test_any_other_error_is_nobody_elses() -> None:
    with pytest.raises(ZeroDivisionError):
        packed(ZeroDivisionError())
    assert select(SPEC).target == "triton"


def launched(error: Exception) -> None:
    launch(Kernel(error), (1,), torch.empty(1), BLOCK=1)


def test_what_the_compiler_or_the_driver_raises_becomes_a_failed_kernel_by_its_name() -> None:
    from triton.runtime.errors import OutOfResources

    shared = OutOfResources(300_000, 232_448, "shared memory")
    for error in (RuntimeError("PassManager::run failed"), shared, ValueError("a\nb"), AssertionError()):
        with pytest.raises(KernelFailed, match=f"thing: {type(error).__name__}") as raised:
            launched(error)
        assert raised.value.__cause__ is error and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("of the allocator"), RuntimeError("Triton Error [CUDA]: out of memory")]
)
def test_out_of_memory_is_torchs_error_whoever_found_it(error: Exception) -> None:
    with pytest.raises(torch.OutOfMemoryError, match=r"of the allocator|CUDA.: out of memory"):
        launched(error)


def test_a_device_that_has_failed_is_not_taken_for_a_kernel_that_did() -> None:
    error = RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access") as raised:
        launched(error)
    assert raised.value is error
