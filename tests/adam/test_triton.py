"""The Triton kernels obey the contract; where there is no GPU, Triton's interpreter runs them, a thousand times slower."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from accelops.kernels.adam import triton
from accelops.kernels.adam.lists import Hyper, Lists
from accelops.kernels.adam.spec import AdamSpec
from accelops.targets.triton import devices

from .contract import HYPER, STATES, AdamContract, copied, make

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, at the interpreter's infinities


def to(device: str, lists: Lists) -> Lists:
    return Lists(*([t.to(device) for t in getattr(lists, f.name)] for f in fields(Lists)))


def step(lists: Lists, hyper: Hyper = HYPER, config: Any = None) -> Lists:
    """A step in place of lists on the CPU, on the device that kernels take."""
    moved = to(devices()[0], lists)
    spec = moved.spec(hyper.seed is not None)
    assert triton.unsupported(spec) == []
    with torch.no_grad():
        triton.run(config or triton.configs(spec)[0], spec, moved, hyper)
        for name in Lists.__dataclass_fields__:
            for original, result in zip(getattr(lists, name), getattr(moved, name), strict=True):
                if result.device != original.device:
                    original.copy_(result)
    return lists


class TestTriton(AdamContract):
    implementation = triton

    def run(self, lists: Lists, hyper: Hyper = HYPER) -> Lists:
        return step(lists, hyper)

    @pytest.mark.parametrize("config", triton.configs(make(torch.float32).spec()))
    def test_every_config_matches_fp64(self, config: triton.Config, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(triton, "configs", lambda spec: [config])
        for dtype, master in ((torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)):
            lists = make(dtype, ((40_001,), (3,), (0,), (16, 512)), amsgrad=True, master=master, ema=True)
            self.check(lists, replace(HYPER, weight_decay=0.1, ema_decay=0.9))


def test_parameters_of_several_dtypes_step_as_each_alone() -> None:
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.complex64)
    for master, ema in ((False, True), (True, False)):
        kinds = [make(d, ((5, 3), (2500,), (33,)), amsgrad=True, master=master, ema=ema) for d in dtypes]
        columns = ([t.clone() for lists in kinds for t in getattr(lists, f.name)] for f in fields(Lists))
        together = Lists(*columns)
        if master:  # moments of full precision are fp32, but those of complex parameters
            kinds, together = kinds[:3], Lists(*(getattr(together, f.name)[:9] for f in fields(Lists)))
        together = to(devices()[0], together)
        together.__dict__["table"] = together.description  # as on a GPU, whose tensors native code does not read
        assert together.parts() == [together]
        triton.run(triton.configs(kinds[0].spec())[0], together.spec(), together, HYPER)
        alone = [step(lists) for lists in kinds]
        for name in (*STATES, "state_steps"):
            for mine, exact in zip(
                getattr(together, name), [t for lists in alone for t in getattr(lists, name)], strict=True
            ):
                assert torch.equal(mine.cpu(), exact), name


@pytest.mark.parametrize("offset", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_that_begin_anywhere_step_the_same(offset: int, dtype: torch.dtype) -> None:
    def shifted(t: Tensor) -> Tensor:
        flat = torch.full((t.numel() + 2 * offset,), float("nan"), dtype=t.dtype)
        return flat[offset:-offset].view(t.shape).copy_(t)

    lists = make(dtype, ((64, 70), (4096,), (5,)))
    other = copied(lists)
    other = replace(other, grads=list(map(shifted, other.grads)), exp_avgs=list(map(shifted, other.exp_avgs)))
    step(lists), step(other)
    for name in STATES:
        assert all(map(torch.equal, getattr(lists, name), getattr(other, name)))
    for m in other.exp_avgs:
        before = m.as_strided((offset,), (1,), 0)
        assert before.isnan().all()


def test_numbers_on_the_device_are_read_there() -> None:
    lists = make(torch.float32)
    other = copied(lists)
    scaled = replace(HYPER, lr=0.125, grad_factor=0.25 / 8, weight_decay=0.1, decoupled=True)
    step(lists, scaled)
    device = devices()[0]
    on_device = {
        "lr": torch.tensor(0.125, device=device),
        "grad_factor": torch.tensor(0.25, device=device),
        "grad_scale": torch.tensor(8.0, device=device),
        "found_inf": torch.tensor(0.0, device=device),
    }
    step(other, replace(scaled, **on_device))
    for name in (*STATES, "state_steps"):
        assert all(map(torch.equal, getattr(lists, name), getattr(other, name)))


@pytest.mark.parametrize("on_device", [False, True])
def test_a_step_that_found_inf_changes_nothing(on_device: bool) -> None:
    lists = make(torch.float32, amsgrad=True, ema=True)
    before = copied(lists)
    moved = to(devices()[0], lists)
    moved.__dict__["description"] = replace(moved.description, steps_on_device=on_device)
    hyper = replace(HYPER, found_inf=torch.tensor(1.0, device=devices()[0]))
    triton.run(triton.configs(moved.spec())[0], moved.spec(), moved, hyper)
    for name in (*STATES, "state_steps"):
        for mine, was in zip(getattr(moved, name), getattr(before, name), strict=True):
            assert torch.equal(mine.cpu(), was), name


def test_counts_on_the_host_give_the_same_step() -> None:
    for steps in ((3.0, 3.0), (3.0, 70.0)):
        lists = make(torch.float32, ((70,), (2, 3)), steps=steps)
        others = to(devices()[0], copied(lists))
        step(lists)
        others = replace(others, state_steps=[s.cpu() for s in others.state_steps])
        others.__dict__["description"] = replace(others.description, steps_on_device=False)
        triton.run(triton.configs(others.spec())[0], others.spec(), others, HYPER)
        assert lists.state_steps == others.state_steps
        for mine, other in zip(lists.params, others.params, strict=True):
            torch.testing.assert_close(mine, other.cpu(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("t", [1, 2, 1000, 10**7])
@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.9, 0.999), (0.99, 0.999999)])
def test_bias_corrections_have_the_precision_of_fp32(t: int, betas: tuple[float, float]) -> None:
    lists = make(torch.float32, ((1,),), steps=(float(t - 1),))
    hyper = replace(HYPER, beta1=betas[0], beta2=betas[1])
    moved = to(devices()[0], lists)
    tables = triton.Tables(moved.description.device)
    addresses = tables.fixed(triton._addresses(moved))
    step_size, root, decay, count = triton._counted_on_device(moved, hyper, tables, addresses).flatten().tolist()
    assert step_size == pytest.approx(HYPER.lr / (1 - betas[0] ** t), rel=3e-7)
    assert root == pytest.approx((1 - betas[1] ** t) ** -0.5, rel=3e-7)
    assert (decay, count) == (1, t)


def test_what_it_does_not_serve_it_names() -> None:
    device = devices()[0]
    assert "float64" in triton.unsupported(AdamSpec(numel=1, dtype="float64", state_dtype="float64", device=device))[0]
    assert "xla" in triton.unsupported(AdamSpec(numel=1, device="xla"))[0]
    assert "state_dtype" in triton.unsupported(AdamSpec(numel=1, state_dtype="bfloat16", device=device))[0]


def test_without_the_native_extension_torch_steps_and_triton_by_name() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_NATIVE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


WITHOUT_NATIVE = """
import sys
sys.modules["accelops._native"] = None  # its import fails
import torch
from accelops.optim import Adam
from accelops.targets.triton import devices

options = dict(max_grad_norm=1e-3, ema_decay=0.9)
for target, extras in ((None, options), (None, {}), ("triton", options), ("triton", {})):
    torch.manual_seed(0)
    device = devices()[0] if target else "cpu"
    weights = [torch.randn(5, dtype=d, device=device) for d in (torch.float32, torch.float16, torch.complex64)]
    others = [w.clone() for w in weights]
    for w, o in zip(weights, others):
        w.requires_grad_(), o.requires_grad_()
        w.grad = torch.randn_like(w)
        o.grad = w.grad.clone()
    ours, theirs = Adam(weights, target=target, eps=1.0, **extras), torch.optim.Adam(others, eps=1.0)
    for _ in range(3):
        ours.step()
        if extras:
            torch.nn.utils.clip_grad_norm_(others, 1e-3)
        theirs.step()
    for w, o in zip(weights, others):
        torch.testing.assert_close(w, o, rtol=1e-2 if w.dtype == torch.float16 else 1e-5, atol=1e-6)
"""
