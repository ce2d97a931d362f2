"""What any implementation of the bucket op must do; tests/bucket/test_<target>.py subclasses BucketContract.

Expectations are worked out here from torch alone: the order of a tensor in the buffer from how the case was made, values in
fp64, roundings by torch's `.to`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from accelops.kernels.bucket.spec import MIXED, BucketSpec

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
SCALES = (1.0, 0.125, 1 / 3, -2.5)


@dataclass(frozen=True)
class Case:
    """A kind of tensor: `whole` is the memory it lies in, `view` takes it from there, `dense` says that it goes to the
    buffer in memory order."""

    name: str
    whole: tuple[int, ...]
    view: Callable[[Tensor], Tensor] = lambda t: t
    dense: bool = True

    def make(self, dtype: torch.dtype) -> Tensor:
        return self.view(torch.randn(self.whole).to(dtype))

    def poisoned(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(the memory, the tensor in it), all NaN."""
        whole = torch.full(self.whole, float("nan"), dtype=dtype)
        return whole, self.view(whole)

    def in_order(self, tensor: Tensor) -> Tensor:
        """The elements as they stand in the buffer."""
        if self.dense:
            return tensor.as_strided((tensor.numel(),), (1,))
        return tensor.reshape(-1)


CASES = (
    Case("contiguous", (3, 5, 7)),
    Case("scalar", ()),
    Case("one element", (1, 1, 1)),
    Case("empty", (0,)),
    Case("empty with a size", (4, 0, 3)),
    Case("channels_last", (2, 9, 4, 5), lambda t: t.view(2, 4, 5, 9).permute(0, 3, 1, 2)),
    Case("channels_last_3d", (2, 3, 2, 4, 5), lambda t: t.view(2, 2, 4, 5, 3).permute(0, 4, 1, 2, 3)),
    Case("transposed", (13, 17), lambda t: t.t()),
    Case("odd offset", (1001,), lambda t: t[1:]),
    Case("even columns", (12, 10), lambda t: t[:, ::2], dense=False),
    Case("all but the first column", (33, 41), lambda t: t[:, 1:], dense=False),
    Case("slice of a transposed", (9, 8, 7), lambda t: t.permute(2, 0, 1)[1:, :, ::3], dense=False),
    Case("long strided", (3, 30011), lambda t: t[:, 1:].t(), dense=False),
    Case("several chunks", (150_001,)),
)


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    """Equal to the bit, except that any NaN is as good as another."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    same = actual.contiguous().view(BITS[actual.dtype]) == expected.contiguous().view(BITS[expected.dtype])
    wrong = ~(same | (actual.isnan() & expected.isnan()))
    assert not wrong.any(), f"at {wrong.nonzero()[:5].tolist()}: {actual[wrong][:5]} instead of {expected[wrong][:5]}"


def assert_as_good_as_torch(actual: Tensor, torch_result: Tensor, exact: Tensor) -> None:
    """The project's bound: twice torch's error against fp64, or two units in the last place of the result's scale."""
    error, torch_error = ((t.double() - exact).abs().max().item() if t.numel() else 0.0 for t in (actual, torch_result))
    floor = 2 * torch.finfo(actual.dtype).eps * (exact.abs().max().item() if exact.numel() else 0.0)
    assert error <= max(2 * torch_error, floor), (error, torch_error)


def rounding_cases(dtype: torch.dtype) -> Tensor:
    """Every number of a 16-bit dtype; of float32 those around each rounding boundary of bf16 and fp16, and the extremes."""
    if dtype is not torch.float32:
        return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int64)[:, None] * 2**16
    halves = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])  # around bf16's ties
    quarters = torch.arange(0, 2**16, 0x1000) + torch.tensor([[-1], [0], [1]])  # around fp16's
    ends = torch.cat([halves, quarters.clamp(0, 2**16 - 1).reshape(-1)])
    return (patterns + ends).reshape(-1).to(torch.int32).view(torch.float32)


class BucketContract:
    implementation: ClassVar[ModuleType]
    config: ClassVar[Any]
    steps: ClassVar[int] = 30  # of error feedback
    numel: ClassVar[int] = 70_001  # of the buffers of which one is enough
    least_scale: ClassVar[float] = 0.0  # larger where products that are subnormal are taken for 0

    def spec(self, direction: str, tensors: Sequence[Tensor], flat: Tensor, **fields: Any) -> BucketSpec:
        names = {str(t.dtype).removeprefix("torch.") for t in tensors}
        dtype = names.pop() if len(names) == 1 else MIXED
        wire = str(flat.dtype).removeprefix("torch.")
        return BucketSpec(direction, flat.numel(), len(tensors), dtype, wire, device=flat.device.type, **fields)

    def pack(
        self, tensors: Sequence[Tensor], wire: torch.dtype, scale: float = 1.0, residual: Tensor | None = None
    ) -> Tensor:
        """Packed into a buffer that was NaN, between two elements that must stay as they are."""
        guarded = torch.full((sum(t.numel() for t in tensors) + 2,), float("nan"), dtype=wire)
        flat = guarded[1:-1]
        spec = self.spec("pack", tensors, flat, error_feedback=residual is not None)
        assert self.implementation.unsupported(spec) == []
        self.implementation.run(self.config, spec, tensors, flat, scale, residual)
        assert guarded[0].isnan() and guarded[-1].isnan()
        return flat

    def unpack(self, flat: Tensor, tensors: Sequence[Tensor], scale: float = 1.0) -> None:
        self.implementation.run(self.config, self.spec("unpack", tensors, flat), flat, tensors, scale)

    def reduce(self, flats: Sequence[Tensor], out: Tensor, scale: float = 1.0) -> Tensor:
        self.implementation.run(self.config, self.spec("reduce", [out], flats[0], ranks=len(flats)), flats, out, scale)
        return out

    @pytest.mark.parametrize("wire", DTYPES)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_every_kind_of_tensor_is_packed_in_its_order(self, dtype: torch.dtype, wire: torch.dtype) -> None:
        tensors = [case.make(dtype) for case in CASES]
        expected = torch.cat([c.in_order(t) for c, t in zip(CASES, tensors, strict=True)]).to(wire)
        assert_same_bits(self.pack(tensors, wire), expected)

    @pytest.mark.parametrize("wire", DTYPES)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_every_kind_of_tensor_is_unpacked_in_its_order_and_nothing_beside_it(
        self, dtype: torch.dtype, wire: torch.dtype
    ) -> None:
        memories, tensors = zip(*(case.poisoned(dtype) for case in CASES), strict=True)
        flat = torch.randn(sum(t.numel() for t in tensors)).to(wire)
        self.unpack(flat, tensors)
        parts = flat.to(dtype).split([t.numel() for t in tensors])
        for case, memory, tensor, part in zip(CASES, memories, tensors, parts, strict=True):
            assert_same_bits(case.in_order(tensor), part)
            assert memory.isnan().sum() == memory.numel() - tensor.numel(), case.name

    @pytest.mark.parametrize("wire", DTYPES)
    def test_tensors_of_different_dtypes_share_a_buffer(self, wire: torch.dtype) -> None:
        tensors = [case.make(DTYPES[i % 3]) for i, case in enumerate(CASES)]
        flat = self.pack(tensors, wire)
        assert_same_bits(flat, torch.cat([c.in_order(t).to(wire) for c, t in zip(CASES, tensors, strict=True)]))
        back = [case.poisoned(t.dtype)[1] for case, t in zip(CASES, tensors, strict=True)]
        self.unpack(flat, back)
        for t, b in zip(tensors, back, strict=True):
            assert_same_bits(b, t.to(wire).to(t.dtype))

    @pytest.mark.parametrize("wire", DTYPES)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_rounding_is_to_nearest_even_and_keeps_nan_and_infinity(
        self, dtype: torch.dtype, wire: torch.dtype
    ) -> None:
        numbers = rounding_cases(dtype)
        assert_same_bits(self.pack([numbers], wire), numbers.to(wire))
        back = torch.full_like(numbers, -1, dtype=wire)
        self.unpack(numbers, [back])
        assert_same_bits(back, numbers.to(wire))

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("wire", DTYPES)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_scale_costs_no_accuracy(self, dtype: torch.dtype, wire: torch.dtype, scale: float) -> None:
        tensor = torch.randn(self.numel).to(dtype)
        exact = tensor.double() * scale
        assert_as_good_as_torch(self.pack([tensor], wire, scale), (tensor.float() * scale).to(wire), exact)
        back = torch.full_like(tensor, float("nan"), dtype=wire)
        self.unpack(tensor, [back], scale)
        assert_as_good_as_torch(back, (tensor.float() * scale).to(wire), exact)

    @pytest.mark.parametrize("wire", DTYPES)
    def test_error_feedback_loses_nothing_over_many_steps(self, wire: torch.dtype) -> None:
        steps, scale = self.steps, 0.25
        residual = torch.zeros(self.numel + 6 * 5)
        given, sent = (torch.zeros(residual.numel(), dtype=torch.float64) for _ in range(2))
        for _ in range(steps):
            tensors = [torch.randn(self.numel), torch.randn(5, 12)[:, ::2]]
            given += scale * torch.cat([t.reshape(-1) for t in tensors]).double()
            before = residual.clone()
            flat = self.pack(tensors, wire, scale, residual)
            exact = scale * torch.cat([t.reshape(-1) for t in tensors]).double() + before
            assert ((flat.double() + residual) - exact).abs().max() <= 2 * torch.finfo(
                torch.float32
            ).eps * exact.abs().max()
            sent += flat.double()
        bound = 2 * steps * torch.finfo(torch.float32).eps * scale * 6
        assert (sent + residual - given).abs().max() <= bound
        assert residual.abs().max() <= torch.finfo(wire).eps * 2

    def test_an_overflow_does_not_stay_in_the_residual(self) -> None:
        infinity = float("inf")
        tensor = torch.tensor([1e6, -1e6, infinity, -infinity, float("nan"), 1 / 3] * 9)
        residual = torch.full((tensor.numel(),), 0.25)
        flat = self.pack([tensor], torch.float16, 1.0, residual)
        assert_same_bits(flat, (tensor + 0.25).half())
        lost = (tensor + 0.25) - flat.float()
        assert (residual - torch.where(flat.isfinite(), lost, 0.0)).abs().max() <= torch.finfo(torch.float32).eps

    @pytest.mark.parametrize("ranks", [1, 2, 3, 8])
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("wire", DTYPES)
    def test_reduce_adds_in_float32_and_rounds_once(self, wire: torch.dtype, dtype: torch.dtype, ranks: int) -> None:
        flats = [torch.randn(self.numel).to(wire) for _ in range(ranks)]
        out = self.reduce(flats, torch.full((self.numel,), float("nan"), dtype=dtype), 1 / ranks)
        total = torch.zeros(self.numel)
        for flat in flats:
            total += flat.float()
        exact = torch.stack(flats).double().sum(0) / ranks
        assert_as_good_as_torch(out, (total * (1 / ranks)).to(dtype), exact)

    @pytest.mark.parametrize("wire", DTYPES)
    def test_reduce_may_write_over_one_of_its_buffers(self, wire: torch.dtype) -> None:
        for rank in range(3):
            flats = [torch.randn(self.numel).to(wire) for _ in range(3)]
            expected = self.reduce(flats, torch.empty_like(flats[0]))
            assert_same_bits(self.reduce(flats, flats[rank]), expected)

    def test_overlapping_views_can_be_packed(self) -> None:
        whole = torch.randn(40)
        tensors = [whole[:30], whole[10:], whole[3:4].expand(5, 7), whole.unfold(0, 8, 2)]
        assert_same_bits(self.pack(tensors, torch.float32), torch.cat([t.reshape(-1) for t in tensors]))

    def test_nothing_to_do_is_done(self) -> None:
        for tensors in ([], [torch.empty(0)], [torch.empty(3, 0), torch.empty(0, 2)]):
            assert self.pack(tensors, torch.bfloat16).numel() == 0
            self.unpack(torch.empty(0), tensors)
        assert self.reduce([torch.empty(0)] * 2, torch.empty(0)).numel() == 0

    @pytest.mark.parametrize("wire", DTYPES)
    def test_results_do_not_depend_on_the_number_of_threads(self, wire: torch.dtype) -> None:
        tensors = [torch.randn(s) for s in (300_007, 3, 0, 65_536, 99)] + [torch.randn(400, 333)[:, 1::2]]
        numel = sum(t.numel() for t in tensors)
        results = []
        before = torch.get_num_threads()
        try:
            for threads in (1, 2, 3, 5):
                torch.set_num_threads(threads)
                residual = torch.full((numel,), 0.01)
                flat = self.pack(tensors, wire, 1 / 3, residual)
                back = [torch.full(t.shape, float("nan")) for t in tensors]
                self.unpack(flat, back, 1.7)
                total = self.reduce([flat, flat, flat], torch.empty(numel), 1 / 3)
                results.append(torch.cat([flat.float(), residual, total, *(b.reshape(-1) for b in back)]))
        finally:
            torch.set_num_threads(before)
        for result in results[1:]:
            assert_same_bits(result, results[0])

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(
        cases=st.lists(st.tuples(st.sampled_from(CASES[:-2]), st.sampled_from(DTYPES)), max_size=12),
        wire=st.sampled_from(DTYPES),
        scale=st.floats(-4, 4, width=32, allow_subnormal=False),
        seed=st.integers(0, 2**31),
    )
    def test_any_list_there_and_back(
        self, cases: list[tuple[Case, torch.dtype]], wire: torch.dtype, scale: float, seed: int
    ) -> None:
        assume(scale == 0 or abs(scale) >= self.least_scale)
        torch.manual_seed(seed)
        tensors = [case.make(dtype) for case, dtype in cases]
        flat = self.pack(tensors, wire, scale)
        empty = torch.empty(0)
        ordered = torch.cat([empty, *(case.in_order(t).float() for (case, _), t in zip(cases, tensors, strict=True))])
        assert_as_good_as_torch(flat, (ordered * scale).to(wire), ordered.double() * scale)
        back = [case.poisoned(dtype)[1] for case, dtype in cases]
        self.unpack(flat, back)
        parts = flat.split([t.numel() for t in tensors]) if tensors else ()
        for (case, dtype), tensor, part in zip(cases, back, parts, strict=True):
            assert_same_bits(case.in_order(tensor), part.to(dtype))


class Float32Contract(BucketContract):
    """What holds besides where sums are made in float32, in the order of the ranks."""

    def test_rank_0_is_added_first(self) -> None:
        flats = [torch.full((100,), x) for x in (1e8, 1.0, -1e8)]
        assert self.reduce(flats, torch.empty(100)).eq(0).all()
        assert self.reduce([flats[0], flats[2], flats[1]], torch.empty(100)).eq(1).all()

    def test_wire_and_residual_add_up_exactly(self) -> None:
        tensor, residual = torch.randn(self.numel), torch.zeros(self.numel)
        flat = self.pack([tensor], torch.bfloat16, 0.5, residual)
        assert torch.equal(flat.float() + residual, tensor * 0.5)
