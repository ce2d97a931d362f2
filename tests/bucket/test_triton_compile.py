"""Triton's own compilers take every config of the bucket kernels, for GPUs that need not be there.

They run in a process of their own, since this one may have the interpreter in the compilers' place.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable

import pytest

from accelops.kernels.bucket.spec import MIXED, BucketSpec
from accelops.kernels.spec import ITEMSIZE
from accelops.targets.triton import ARCHITECTURES

from ..interpreter import without_interpreter

N = 10**6
SPECS = [
    dataclasses.replace(spec, device="meta")
    for spec in (
        BucketSpec("pack", N, 10, "float32", "bfloat16"),
        BucketSpec("pack", N, 10, "float32", "bfloat16", error_feedback=True),
        BucketSpec("pack", N, 10, MIXED, "float16", error_feedback=True),
        BucketSpec("unpack", N, 10, "float32", "bfloat16"),
        BucketSpec("unpack", N, 10, "bfloat16", "float32"),
        BucketSpec("unpack", N, 10, MIXED, "float16"),
        BucketSpec("reduce", N, 1, "float32", "bfloat16", ranks=4),
        BucketSpec("reduce", N, 1, "float16", "float16", ranks=4),
    )
]


WARP = {name: architecture.warp for name, architecture in ARCHITECTURES.items()}


@dataclasses.dataclass(frozen=True)
class Row:
    """One compiled kernel; `loaded` and `stored` are the bytes that a thread moves at least 8 at once, by its assembly."""

    spec: BucketSpec
    config: str
    block: int
    num_warps: int
    aligned: bool
    architecture: str
    spilled: int
    shared: int
    error: str
    loaded: int
    stored: int


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Each spec with each config for each architecture, and each reduction also of buffers that begin anywhere."""
    found = without_interpreter("tests.bucket.test_triton_compile", cache=tmp_path_factory.mktemp("triton"))
    return [Row(**{**row, "spec": BucketSpec.from_json(row["spec"])}) for row in found]


def main() -> None:
    from triton.runtime.jit import JITFunction

    from accelops.bench.triton_aot import compile_for
    from accelops.kernels.bucket import triton

    warmup, made = JITFunction.warmup, []
    JITFunction.warmup = lambda self, *a, **k: made.append(warmup(self, *a, **k)) or made[-1]

    def compile_all(specs: list[BucketSpec], aligned: bool) -> None:
        for architecture in ARCHITECTURES:
            for spec in specs:
                for config, found in zip(triton.configs(spec), compile_for(architecture, [spec]), strict=True):
                    code = made[-1].asm.get("ptx") or made[-1].asm["amdgcn"]
                    row = {
                        name: getattr(found, name) for name in ("spec", "architecture", "spilled", "shared", "error")
                    }
                    row |= dataclasses.asdict(config) | vectors(code) | {"config": str(config), "aligned": aligned}
                    print(json.dumps(row))

    compile_all(SPECS, aligned=True)
    triton.addresses = lambda tensors: [2] * len(tensors)
    compile_all([spec for spec in SPECS if spec.direction == "reduce"], aligned=False)


def vectors(code: str) -> dict[str, int]:
    found = re.findall(r"\b(ld|st)\.global\S*\.v([248])\.b32", code)
    found += re.findall(r"\b(?:global|buffer)_(load|store)_dwordx([24])\b", code)
    moved = {"loaded": 0, "stored": 0}
    for way, words in found:
        moved["loaded" if way in ("ld", "load") else "stored"] += 4 * int(words)
    return moved


def test_every_config_compiles_for_every_architecture(
    rows: list[Row], record_property: Callable[[str, object], None]
) -> None:
    record_property("compiled", len(rows))
    reductions = [spec for spec in SPECS if spec.direction == "reduce"]
    configs = {row.config for row in rows}
    assert len(rows) == len(configs) * len(ARCHITECTURES) * (len(SPECS) + len(reductions)) >= 160
    assert [row for row in rows if row.error] == []


def test_none_spills_or_needs_shared_memory(rows: list[Row]) -> None:
    assert [row for row in rows if row.spilled] == []
    assert [row for row in rows if row.aligned and row.shared] == []
    assert [row for row in rows if row.shared > ARCHITECTURES[row.architecture].shared_memory] == []


def test_what_is_aligned_moves_by_vectors_alone(rows: list[Row]) -> None:
    """All elements of a chunk, counted in bytes: once for each dtype that tensors of a mixed list may have."""
    for row in rows:
        if not row.aligned or not row.architecture.startswith("sm_"):
            continue
        spec, threads = row.spec, WARP[row.architecture] * row.num_warps
        tensors = [2, 2, 4] if spec.dtype == MIXED else [ITEMSIZE[spec.dtype]]
        wires = [ITEMSIZE[spec.wire_dtype]] * len(tensors)
        residual = 4 * len(tensors) * spec.error_feedback
        loaded, stored = (tensors, wires) if spec.direction == "pack" else (wires, tensors)
        assert row.loaded * threads == row.block * (sum(loaded) + residual), row
        assert row.stored * threads == row.block * (sum(stored) + residual), row


def test_vectors_are_found_for_amd_too(rows: list[Row]) -> None:
    for row in rows:
        assert not row.aligned or (row.loaded >= 8 and row.stored >= 8), row


if __name__ == "__main__":
    main()
