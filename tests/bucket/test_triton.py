"""The Triton kernels obey the contract; where there is no GPU, Triton's interpreter runs them, a thousand times slower."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from accelops.kernels.bucket import triton
from accelops.kernels.bucket.spec import BucketSpec
from accelops.targets.triton import devices, emulated

from ..interpreter import run_program
from .contract import DTYPES, Float32Contract, assert_same_bits

pytestmark = [
    pytest.mark.usefixtures("interpreter_rounds_to_bf16"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, at the interpreter's infinities
]

CONFIGS = triton.configs(BucketSpec("pack", 1))
LONG = 2**31 + 77


@pytest.fixture(autouse=True)
def _tensors_where_kernels_take_them() -> Iterator[None]:
    with torch.device(devices()[0]):
        yield


class TestTriton(Float32Contract):
    implementation = triton
    config = max(CONFIGS, key=lambda config: config.block)
    steps = 4 if emulated() else 30

    @pytest.mark.parametrize("config", CONFIGS, ids=str)
    def test_every_config_there_and_back(self, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lists whose tensors begin at 16 bytes in the buffer and elsewhere, in pieces and whole."""
        monkeypatch.setattr(TestTriton, "config", config)
        sizes = (3 * config.block, 8, config.block - 8, 0, 2 * config.block + 3, 40, 5)
        for wire in DTYPES:
            tensors = [torch.randn(n).to(DTYPES[i % 3]) for i, n in enumerate(sizes)]
            residual = torch.randn(sum(sizes)) / 128
            exact = torch.cat([t.float() for t in tensors]) / 2 + residual
            flat = self.pack(tensors, wire, 0.5, residual)
            assert_same_bits(flat, exact.to(wire))
            assert_same_bits(residual, exact - flat.float())
            back = [torch.full_like(t, float("nan")) for t in tensors]
            self.unpack(flat, back, 2.0)
            for there, part in zip(back, flat.split(sizes), strict=True):
                assert_same_bits(there, (part.float() * 2).to(there.dtype))
            for flats in ([flat, flat, flat.flip(0)], [flat[1:], flat[:-1]]):
                out = torch.full((flats[0].numel(),), float("nan"))
                total = sum(f.float() for f in flats)
                assert_same_bits(self.reduce(flats, out, 0.5), total * 0.5)

    @pytest.mark.skipif(not emulated(), reason="a program alone is run in the interpreter")
    def test_a_program_begins_at_a_line_of_the_buffer_and_fills_whole_lines(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        block = self.config.block
        tensors = [torch.randn(5), torch.randn(3 * block)]
        flat = torch.full((5 + 3 * block,), float("nan"))

        def pack() -> None:
            triton.run(self.config, self.spec("pack", tensors, flat), tensors, flat, 1.0, None)

        run_program(2, pack, monkeypatch)
        assert flat.isfinite().nonzero().view(-1).tolist() == list(range(block, 2 * block))

    @pytest.mark.skipif(not emulated(), reason="a program alone is run in the interpreter")
    def test_pack_and_reduce_beyond_2_to_the_31_elements(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On memory of which nothing is touched but what the last programs read and write."""
        long, behind, flat = (torch.empty(n, dtype=torch.bfloat16) for n in (LONG, 40, LONG + 40))
        last = slice(LONG - 77, LONG)
        behind.copy_(torch.randn(40))
        long[last] = torch.randn(77)

        def pack() -> None:
            spec = self.spec("pack", [long, behind], flat)
            triton.run(self.config, spec, [long, behind], flat, 1.0, None)

        run_program(-1, pack, monkeypatch)
        run_program(-2, pack, monkeypatch)
        assert_same_bits(flat[LONG:], behind)
        assert_same_bits(flat[last], long[last])

        def reduce() -> None:
            triton.run(self.config, self.spec("reduce", [long], long), [long, flat[:LONG]], long, 1.0)

        run_program(-1, reduce, monkeypatch)
        assert_same_bits(long[last], 2 * flat[last])
