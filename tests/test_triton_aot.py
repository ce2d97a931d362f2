"""What is reported of kernels that are compiled for GPUs that are not there.

Triton's compilers run in a process of their own, since this one may have its interpreter in their place; there an op
named "probe" has the kernels of this file, a Spec for each.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import triton
import triton.language as tl

from accelops.bench.triton_aot import Compiled, compile_for, summary
from accelops.kernels.spec import Spec
from accelops.targets.triton import ARCHITECTURES, architecture, launch

from .interpreter import without_interpreter


@dataclass(frozen=True)
class Probe(Spec):
    op: ClassVar[str] = "probe"

    kernel: str
    device: str = "meta"


@dataclass(frozen=True)
class Config:
    num_warps: int


@triton.jit
def copy(x, y, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i))


@triton.jit
def spill(x, y, BLOCK: tl.constexpr):
    """Elements that all wait for their sum: more than the registers of one warp hold."""
    i = tl.arange(0, BLOCK)
    values = tl.load(x + i)
    tl.store(y + i, values / tl.sum(values))


@triton.jit
def share(x, y, BLOCK: tl.constexpr):
    """A product of factors that lie in shared memory, more of it than a program may have."""
    m, n = tl.arange(0, 128), tl.arange(0, 128)
    k = tl.arange(0, BLOCK)
    left = tl.load(x + m[:, None] * BLOCK + k[None, :])
    right = tl.load(y + k[:, None] * 128 + n[None, :])
    tl.store(x + m[:, None] * 128 + n[None, :], tl.dot(left, right).to(tl.float16))


@triton.jit
def refuse(x, y, BLOCK: tl.constexpr):
    tl.static_assert(False, "this kernel is refused")


BLOCKS = {copy: 1024, spill: 2**15, share: 512, refuse: 16}
KERNELS = {kernel.__name__: kernel for kernel in BLOCKS}


def configs(spec: Probe) -> list[Config]:
    return [Config(1), Config(2)] if spec.kernel == "copy" else [Config(1 if spec.kernel == "spill" else 4)]


def operands(spec: Probe) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = torch.float16 if spec.kernel == "share" else torch.float32
    return torch.empty(2**20, dtype=dtype, device="meta"), torch.empty(2**20, dtype=dtype, device="meta")


def run(config: Config, spec: Probe, x: torch.Tensor, y: torch.Tensor) -> None:
    kernel = KERNELS[spec.kernel]
    for _ in range(2 if spec.kernel == "copy" else 1):
        launch(kernel, (architecture().multiprocessors,), x, y, BLOCK=BLOCKS[kernel], num_warps=config.num_warps)


def main() -> None:
    probe = SimpleNamespace(configs=configs, run=run, operands=operands)
    sys.modules["accelops.kernels.probe.triton"] = sys.modules["accelops.kernels.probe.operands"] = probe
    sys.modules["accelops.kernels.probe"] = probe
    before = triton.runtime.driver._active
    for name in ARCHITECTURES:
        for row in compile_for(name, [Probe(kernel) for kernel in KERNELS]):
            print(json.dumps(asdict(row)))
    assert triton.runtime.driver._active is before


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[Compiled]]:
    """By kernel and architecture."""
    rows = without_interpreter("tests.test_triton_aot", cache=tmp_path_factory.mktemp("triton"))
    found: dict[tuple[str, str], list[Compiled]] = {}
    for row in (Compiled(**row) for row in rows):
        found.setdefault((row.kernel, row.architecture), []).append(row)
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_launch_of_every_config_is_reported(rows: Any, name: str) -> None:
    found = rows["copy", name]
    assert [row.config for row in found] == ["Config(num_warps=1)"] * 2 + ["Config(num_warps=2)"] * 2
    assert {(row.op, row.spec) for row in found} == {("probe", Probe("copy").to_json())}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_small_kernel_has_registers_and_needs_nothing_else(rows: Any, name: str) -> None:
    for row in rows["copy", name]:
        assert 0 < row.registers <= 255 and (row.spilled, row.shared, row.error) == (0, 0, "")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_kernel_made_to_spill_spills(rows: Any, name: str) -> None:
    [row] = rows["spill", name]
    assert row.spilled > 500 and row.registers > 0 and row.error == ""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_kernel_that_asks_too_much_shared_memory_fails_as_its_launch_would(rows: Any, name: str) -> None:
    [row] = rows["share", name]
    limit = ARCHITECTURES[name].shared_memory
    assert row.shared > limit and str(row.shared) in row.error and str(limit) in row.error


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_the_compiler_refuses_is_reported_and_the_others_go_on(rows: Any, name: str) -> None:
    [row] = rows["refuse", name]
    assert "this kernel is refused" in row.error and row.registers == 0


def test_a_summary_names_all_that_failed_or_spill() -> None:
    def compiled(kernel: str, **found: Any) -> Compiled:
        return Compiled("probe", kernel, "Config()", "{}", "sm_90", **found)

    good, other = compiled("good", registers=40, shared=1024), compiled("good", registers=30, shared=2048)
    spilling = compiled("large", registers=255, spilled=8)
    failed = compiled("broken", error="no")
    found = summary([good, failed, spilling, other])
    assert found["kernels"] == 4 and found["by_architecture"] == {"sm_90": 4}
    assert found["by_kernel"] == {"probe good": 2, "probe large": 1, "probe broken": 1}
    assert (found["most_registers"], found["most_shared_memory"]) == (255, 2048)
    assert found["failed"] == [asdict(failed)] and found["spilling"] == [asdict(spilling)]
    assert summary([])["most_registers"] == 0


if __name__ == "__main__":
    main()
