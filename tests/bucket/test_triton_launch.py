"""What bucketing in Triton launches: grids and tables that cover each element once, and tables that are kept and renewed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from accelops.kernels.bucket import chunks, triton
from accelops.kernels.bucket.layout import layout
from accelops.kernels.bucket.spec import MIXED, BucketSpec
from accelops.targets.triton import architecture, emulated, launching

pytestmark = pytest.mark.skipif(not emulated(), reason="tables are looked at on the CPU")

CONFIG = triton.Config(1024, 4)
SIZES = (3000, 0, 64, 1, 1024, 0, 7, 2048, 1023, 5000)


@dataclass(frozen=True)
class Launch:
    kernel: str
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]

    @property
    def table(self) -> Tensor:
        return self.arguments[3 if self.kernel == "move" else 2]


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_kept", OrderedDict())
    monkeypatch.setattr(chunks, "_captured", {})


def launches(direction: str, *operands: Any, config: triton.Config = CONFIG) -> list[Launch]:
    flat, tensors = (operands[1], operands[0]) if direction == "pack" else operands[:2]
    if direction == "reduce":
        tensors, flat = [operands[1]], operands[0][0]
    names = {str(t.dtype).removeprefix("torch.") for t in tensors}
    wire = str(flat.dtype).removeprefix("torch.")
    spec = BucketSpec(
        direction, flat.numel(), len(tensors), names.pop() if len(names) == 1 else MIXED, wire,
        ranks=len(operands[0]) if direction == "reduce" else 1,
        error_feedback=direction == "pack" and operands[3] is not None,
    )  # fmt: skip
    seen: list[Launch] = []
    with launching(lambda kernel, grid, *a, **k: seen.append(Launch(kernel.__name__, grid, a, k)), architecture()):
        triton.run(config, spec, *operands)
    return seen


def pack(tensors: list[Tensor], config: triton.Config = CONFIG, residual: Tensor | None = None) -> Launch:
    """The one launch that packs these tensors."""
    flat = torch.empty(sum(t.numel() for t in tensors), dtype=torch.bfloat16)
    [only] = launches("pack", tensors, flat, 1.0, residual, config=config)
    return only


def pieces(launch: Launch) -> Iterator[tuple[int, int, int, int]]:
    """(address, begin in the buffer, first element, length) of each program's chunk, as the kernel works them out."""
    block = launch.constants["BLOCK"]
    rows = launch.table.view(-1, chunks.ROW).tolist()
    assert len(rows) == launch.arguments[4] + 1
    for program in range(*launch.grid):
        row = max(i for i, (chunk, *_) in enumerate(rows) if chunk <= program)
        chunk, begin, address, _ = rows[row]
        step = (program - chunk) * block - begin % chunks.LINE
        first = max(step, 0)
        yield address, begin, first, min(step + block, rows[row + 1][1] - begin) - first


@pytest.mark.parametrize("config", triton.configs(BucketSpec("pack", 1)), ids=str)
def test_chunks_cover_each_element_once_where_its_tensor_lies(config: triton.Config) -> None:
    tensors = [torch.empty(n * 3, dtype=torch.float16) for n in SIZES]
    launch = pack(tensors, config)
    covered = []
    for address, begin, first, length in pieces(launch):
        [owner] = [i for i, t in enumerate(tensors) if t.numel() and t.data_ptr() == address]
        assert begin == 3 * sum(SIZES[:owner]) and 0 < length <= config.block
        covered.append(torch.arange(begin + first, begin + first + length))
    assert torch.equal(torch.cat(covered), torch.arange(3 * sum(SIZES)))


def test_every_chunk_but_the_first_of_its_tensor_begins_at_a_line_of_the_buffer() -> None:
    inner = [
        (begin + first) % chunks.LINE for _, begin, first, _ in pieces(pack([torch.empty(n) for n in SIZES])) if first
    ]
    assert inner and not any(inner)


def test_chunks_of_more_than_2_to_the_31_elements() -> None:
    """The memory is never touched."""
    tensors = [torch.empty(n, dtype=torch.bfloat16) for n in (2**31 + 77, 50)]
    *_, last, behind = pieces(pack(tensors, triton.Config(2**20, 8)))
    assert last[1] == 0 and last[2] + last[3] == 2**31 + 77
    assert behind[1:] == (2**31 + 77, 0, 50)


def test_rows_say_the_dtype_where_the_tensors_differ() -> None:
    dtypes = [torch.bfloat16, torch.float32, torch.float16, torch.float32]
    launch = pack([torch.empty(100, dtype=dtype) for dtype in dtypes])
    assert launch.constants["DTYPE"] is None
    assert launch.table.view(-1, chunks.ROW)[:-1, 3].tolist() == [chunks.CODES[str(d).split(".")[1]] for d in dtypes]
    assert pack([torch.empty(100)] * 2).constants["DTYPE"] is triton.DTYPES["float32"]


@pytest.mark.parametrize("direction", ["pack", "unpack"])
def test_one_launch_for_a_list_of_any_length(direction: str) -> None:
    tensors, flat = [torch.empty(3) for _ in range(2000)], torch.empty(6000)
    operands = (tensors, flat, 0.5, torch.zeros(6000)) if direction == "pack" else (flat, tensors, 0.5)
    [only] = launches(direction, *operands)
    assert only.kernel == "move" and only.grid == (2000,)
    assert only.constants["PACK"] == only.constants["FEEDBACK"] == (direction == "pack")


def test_nothing_is_launched_for_nothing() -> None:
    for tensors in ([], [torch.empty(0), torch.empty(4, 0)]):
        assert launches("pack", tensors, torch.empty(0), 1.0, None) == []
        assert launches("unpack", torch.empty(0), tensors, 1.0) == []
    assert launches("reduce", [torch.empty(0)] * 2, torch.empty(0), 1.0) == []


def test_only_tensors_with_gaps_are_copied() -> None:
    dense = torch.empty(2, 3, 4, 4).to(memory_format=torch.channels_last)
    gaps = torch.empty(6, 8)[:, ::2]
    launch = pack([dense, gaps, dense.permute(3, 1, 0, 2)])
    first, second, third = launch.table.view(-1, chunks.ROW)[:3, 2].tolist()
    assert first == third == dense.data_ptr() and second != gaps.data_ptr()


@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize("ranks", [1, 3])
def test_reduce_reads_all_ranks_in_one_launch_and_says_whether_they_are_aligned(ranks: int, odd: int) -> None:
    flats = [torch.empty(5008)[:5000] for _ in range(ranks)]
    flats[-1] = torch.empty(5008)[odd:][:5000]
    [only] = launches("reduce", flats, torch.empty(5000), 1 / ranks)
    assert (only.kernel, only.grid) == ("reduce", (5,))
    assert only.table.tolist() == [flat.data_ptr() for flat in flats]
    assert only.arguments[3:] == (5000, ranks)
    assert only.constants["VECTOR"] == (1 if odd else 4)


def test_a_table_is_kept_while_the_tensors_stay_and_renewed_when_one_moves() -> None:
    tensors = [torch.empty(n) for n in SIZES]
    before = pack(tensors).table
    assert pack(tensors).table is before
    tensors[0] = torch.empty(3000)
    after = pack(tensors).table
    assert after is not before and after[2] == tensors[0].data_ptr()


def test_the_same_addresses_with_other_sizes_have_a_table_of_their_own() -> None:
    whole = torch.empty(4000)
    assert pack([whole[:2000], whole[2000:]]).table is not pack([whole[:1000], whole[2000:]]).table
    assert len(list(pieces(pack([whole])))) == 4 and len(list(pieces(pack([whole[:1000]])))) == 1


def test_the_same_list_in_other_chunks_has_a_table_of_its_own() -> None:
    tensors = [torch.empty(n) for n in SIZES]
    assert pack(tensors, triton.Config(2048, 4)).grid != pack(tensors).grid
    assert sum(length for *_, length in pieces(pack(tensors, triton.Config(2048, 4)))) == sum(SIZES)


def test_tables_are_bounded_in_number() -> None:
    kept = torch.empty(10_000)
    for i in range(2 * chunks.MOST_TABLES):
        pack([kept[i : i + 10]])
    assert len(chunks._kept) == chunks.MOST_TABLES


def under_capture(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> Any:
    with monkeypatch.context() as during:
        during.setattr(chunks, "_stream", lambda device: None)
        return work()


def test_a_captured_graph_makes_its_own_table_in_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.empty(n) for n in SIZES]
    copies: list[Any] = []
    monkeypatch.setattr(torch, "tensor", lambda *a, **k: copies.append(a))
    captured = under_capture(monkeypatch, lambda: pack(tensors))
    again = under_capture(monkeypatch, lambda: pack(tensors))
    assert copies == [] and captured.table is not again.table and not chunks._kept
    monkeypatch.undo()
    assert torch.equal(captured.table, pack(tensors).table)


def test_a_captured_graph_keeps_the_tables_that_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.empty(n) for n in SIZES]
    before = pack(tensors).table
    assert under_capture(monkeypatch, lambda: pack(tensors)).table is before
    chunks._kept.clear()
    assert any(table is before for table in chunks._captured.values())


def test_a_table_made_on_another_stream_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.empty(n) for n in SIZES]
    before = pack(tensors).table
    monkeypatch.setattr(chunks, "_stream", lambda device: 7)
    assert pack(tensors).table is not before


def test_numbers_that_travel_as_launch_arguments_arrive_exactly() -> None:
    numbers = [2**62 + 1, 0, -1, 2**53 + 1, 1] * 50
    assert chunks._by_launches(torch.device("cpu"), numbers).tolist() == numbers


def test_a_layout_is_worked_out_once() -> None:
    tensors = [torch.empty(n) for n in SIZES]
    assert layout(tensors) is layout([torch.empty(n) for n in SIZES])
