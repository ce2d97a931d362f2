"""Shared memory is found and refused without the native extension as it is with it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from accelops.dispatch import bucket as ops
from accelops.distributed import pack, unpack
from accelops.kernels.bucket import layout, native

from .contract import DTYPES
from .test_op import REFUSED

MEMORY = 64  # bytes


@st.composite
def views(draw: st.DrawFn, memory: Tensor) -> Tensor:
    """Any view of up to three dimensions that fits the memory, its elements once or more than once, in any dtype."""
    typed = memory.view(draw(st.sampled_from(DTYPES)))
    begin = draw(st.integers(0, typed.numel() - 1))
    room, sizes, strides = typed.numel() - begin - 1, [], []
    for _ in range(draw(st.integers(0, 3))):
        stride = draw(st.integers(0, 9))
        size = draw(st.integers(0, min(4, 1 + room // stride) if stride else 4))
        room -= max(size - 1, 0) * stride
        sizes.append(size)
        strides.append(stride)
    return typed.as_strided(sizes, strides, typed.storage_offset() + begin)


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[Tensor], Tensor]:
    """(views of one memory, a buffer in the same memory)."""
    memory = torch.zeros(MEMORY, dtype=torch.uint8)
    tensors = draw(st.lists(views(memory), max_size=4))
    typed = memory.view(draw(st.sampled_from(DTYPES)))
    begin = draw(st.integers(0, typed.numel()))
    return tensors, typed[begin : begin + draw(st.integers(0, typed.numel() - begin))]


def elements(tensor: Tensor) -> list[set[int]]:
    """The bytes of each element."""
    size = tensor.element_size()
    offsets = torch.zeros(1, dtype=torch.int64)
    for n, stride in zip(tensor.shape, tensor.stride(), strict=True):
        offsets = (offsets[:, None] + torch.arange(n) * stride).view(-1)
    return [set(range(a, a + size)) for a in (tensor.data_ptr() + offsets * size).tolist()]


@settings(max_examples=300, deadline=None)
@given(lists())
def test_overlaps_are_exactly_those_of_the_elements(given: tuple[list[Tensor], Tensor]) -> None:
    tensors, _ = given
    owners = [(i, bytes) for i, t in enumerate(tensors) for bytes in elements(t)]
    pairs = {(i, j) for k, (i, a) in enumerate(owners) for j, b in owners[k + 1 :] if a & b}
    where = layout.addresses(tensors)
    for found in (layout.layout(tensors), native.layout(tensors)):
        pair = found.overlap(where)
        assert pair in pairs if pairs else pair == (-1, -1)


def test_an_overlap_behind_a_tensor_that_only_interleaves_is_found() -> None:
    memory = torch.zeros(64)
    tensors = [memory[::2], memory[1:2], memory[40:41]]
    for found in (layout.layout(tensors), native.layout(tensors)):
        assert found.overlap(layout.addresses(tensors)) == (0, 2)


@settings(max_examples=300, deadline=None)
@given(lists())
def test_both_layouts_name_the_same_tensor_entangled_with_the_buffer(given: tuple[list[Tensor], Tensor]) -> None:
    tensors, flat = given
    where = layout.addresses(tensors), flat.data_ptr(), flat.nbytes, str(flat.dtype).removeprefix("torch.")
    assert layout.layout(tensors).entangled(*where) == native.layout(tensors).entangled(*where)


@pytest.fixture
def no_native_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "unavailable", lambda target: "the native extension does not load")


@pytest.mark.usefixtures("no_native_extension")
@pytest.mark.parametrize("name", REFUSED)
def test_refused_without_the_native_extension(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(RuntimeError, match=message):
        call()


@pytest.mark.usefixtures("no_native_extension")
def test_outputs_that_interleave_and_tensors_at_their_own_place_are_served_without_it() -> None:
    whole = torch.full((6, 8), float("nan"))
    pieces = [whole[:, ::2], whole[:3, 1::2], whole[3:, 1::2].t()]
    flat = torch.arange(48.0)
    unpack(flat, pieces, target="aten")
    assert torch.equal(torch.cat([p.reshape(-1) for p in pieces]), flat)
    pack([flat[:20].view(4, 5).t(), flat[20:]], flat, 0.5, target="aten")
    assert torch.equal(flat, torch.arange(48.0) / 2)
