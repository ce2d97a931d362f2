"""The fast CPU kernel obeys the contract, with every instruction set."""

import os
import subprocess
import sys

import pytest
import torch

from accelops.kernels.adam import cpu, native
from accelops.kernels.adam.spec import AdamSpec

from .contract import AdamContract, make


class TestCpu(AdamContract):
    implementation = cpu


def test_what_it_does_not_serve_it_names() -> None:
    assert "float64" in cpu.unsupported(AdamSpec(numel=1, dtype="float64", state_dtype="float64"))[0]
    assert "cuda" in cpu.unsupported(AdamSpec(numel=1, device="cuda"))[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_grad_norm_matches_fp64(dtype: torch.dtype) -> None:
    lists = make(dtype, ((100_003,), (5, 7), (0,), (33,)))
    grads = torch.cat([torch.view_as_real(g).flatten() if g.is_complex() else g.flatten() for g in lists.grads])
    want = grads.double().norm().item()
    assert native.grad_norm(lists) == pytest.approx(want, rel=1e-6)


def test_grad_norm_does_not_depend_on_the_number_of_threads() -> None:
    lists = make(torch.float32, ((100_003,), (70_000,)))
    before = torch.get_num_threads()
    norms = set()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            norms.add(native.grad_norm(lists))
    finally:
        torch.set_num_threads(before)
    assert len(norms) == 1


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_the_contract_holds_with_instruction_set(isa: str) -> None:
    asked = os.environ.get("ACCELOPS_ISA")
    if asked is not None:
        pytest.skip(f"ACCELOPS_ISA={asked} is set already")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env={**os.environ, "ACCELOPS_ISA": isa}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
