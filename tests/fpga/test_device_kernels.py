"""What boards do for tensors of their device: the same results, and no transfer between two kernels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import accelops
import accelops.dispatch.bucket  # defines the ops
from accelops import TargetUnavailable, agreement, demo
from accelops.agreement import Script
from accelops.targets.fpga.driver import Driver

from .driven import BOARDS, recorded
from .on_device import BOARD, registered
from .test_training import batches, network


@pytest.fixture(scope="module", autouse=True)
def device(emulated_board: Callable[[str], Any]) -> Iterator[torch.device]:
    yield from registered(emulated_board(BOARD), emulated_board("zcu104"))


@pytest.fixture
def driver(emulated_board: Callable[[str], Any]) -> Driver:
    return emulated_board(BOARD)


@contextmanager
def moving(driver: Driver, flushed: bool, fetched: bool) -> Iterator[None]:
    """Whether bytes go there and come back meanwhile, by the driver's own count."""
    before = driver.moved.flushed, driver.moved.fetched
    yield
    assert (driver.moved.flushed > before[0], driver.moved.fetched > before[1]) == (flushed, fetched)


def close(found: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(found.cpu(), want, rtol=1e-4, atol=1e-5)


def convolutions(memory_format: torch.memory_format = torch.contiguous_format) -> tuple[nn.Module, nn.Module, Tensor]:
    """Two in a row, here and on the board, and an input."""
    torch.manual_seed(0)
    here = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, groups=2)).to(memory_format=memory_format)
    there = copy.deepcopy(here).to("fpga")
    return here, there, torch.randn(2, 8, 6, 6).to(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_between_two_convolutions_nothing_moves(driver: Driver, memory_format: torch.memory_format):
    here, there, x = convolutions(memory_format)
    given = x.to("fpga")
    with torch.no_grad():
        with moving(driver, flushed=True, fetched=False):
            there(given)
        with moving(driver, flushed=False, fetched=False), recorded(driver) as launches:
            found = there(given)
        assert [launch.kernel for launch in launches] == ["conv_fp32"] * 3  # a launch a group
        with moving(driver, flushed=False, fetched=True):
            close(found, here(x))
        with moving(driver, flushed=False, fetched=False):
            close(found, here(x))  # fetched once
    assert found.is_contiguous(memory_format=memory_format)


def test_gradients_of_convolutions_in_a_row_are_torchs():
    here, there, x = convolutions()
    given, x = x.to("fpga").requires_grad_(), x.requires_grad_()
    there(given).square().sum().backward(), here(x).square().sum().backward()
    for found, want in zip((given, *there.parameters()), (x, *here.parameters()), strict=True):
        close(found.grad, want.grad)


def test_a_cpu_op_in_between_sees_what_the_board_wrote_and_the_board_what_it_wrote(driver: Driver):
    here, there, x = convolutions()
    with torch.no_grad():
        with moving(driver, flushed=True, fetched=True):
            close(there[1](there[0](x.to("fpga")).relu_()), here[1](here[0](x).relu_()))
        found, want = there[0](x.to("fpga")), here[0](x)
        found[1, 3:5].mul_(2), want[1, 3:5].mul_(2)  # a part
        found[0].fill_(7), want[0].fill_(7)
        close(there[1](found), here[1](want))
        found = there[0](x.to("fpga"))
        with moving(driver, flushed=False, fetched=False):
            found.copy_(want)  # all of it: what the board has is of no use
        close(there[1](found), here[1](want))


@pytest.mark.parametrize("which", ["weight", "bias"])
def test_weights_written_by_any_way_are_those_of_the_next_convolution(which: str):
    here, there, x = convolutions()
    given = x.to("fpga")
    with torch.no_grad():
        there(given)
        for write in (
            lambda p: p.data.mul_(2),
            lambda p: p.detach()[0].fill_(3),
            lambda p: p.untyped_storage().fill_(0),
        ):
            write(getattr(there[0], which)), write(getattr(here[0], which))
            close(there(given), here(x))


def test_an_output_of_inference_mode_can_be_read_and_used_outside():
    here, there, x = convolutions()
    with torch.inference_mode():
        first, second = there[0](x.to("fpga")), there[0](x.to("fpga"))
    close(first, here[0](x).detach())
    with torch.inference_mode():
        close(there[1](second), here[1](here[0](x)))


def test_slices_of_a_data_set_are_convolved():
    here, there, _ = convolutions()
    images = torch.randn(7, 8, 6, 6)
    given = images.to("fpga")
    with torch.no_grad():
        for at in (0, 2, 5, 0):
            close(there(given[at : at + 2]), here(images[at : at + 2]))


OPTIMIZERS = {
    "Adam": lambda p: torch.optim.Adam(p, 1e-2),
    "Adam fused": lambda p: torch.optim.Adam(p, 1e-2, fused=True),
    "Adam foreach": lambda p: torch.optim.Adam(p, 1e-2, foreach=True, amsgrad=True),
    "Adam loop": lambda p: torch.optim.Adam(p, 1e-2, foreach=False, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, 1e-2, maximize=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, torch.tensor(1e-2), fused=True, amsgrad=True),
    "accelops Adam": lambda p: accelops.optim.Adam(p, 1e-2),
}


def given_gradients(*models: nn.Module) -> None:
    torch.manual_seed(1)
    for parameters in zip(*(model.parameters() for model in models), strict=True):
        grad = torch.randn(parameters[0].shape)
        for p in parameters:
            p.grad = grad.to(p)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_adam_steps_where_the_parameters_lie_and_moves_nothing_after_the_first(driver: Driver, name: str):
    here, there, _ = convolutions()
    given_gradients(here, there)
    mine, theirs = OPTIMIZERS[name](there.parameters()), OPTIMIZERS[name](here.parameters())
    mine.step()
    with moving(driver, flushed=False, fetched=False), recorded(driver) as launches:
        mine.step()
    assert [launch.kernel for launch in launches] == ["adam"] * 4
    theirs.step(), theirs.step()
    for p, want in zip(there.parameters(), here.parameters(), strict=True):
        close(p, want)
        for key, state in theirs.state[want].items():
            close(mine.state[p][key], state)


def test_extras_of_accelops_optimizers_are_right_there():
    options = dict(max_grad_norm=0.5, ema_decay=0.9, master_weights=True)
    here, there, _ = (m.bfloat16() if isinstance(m, nn.Module) else m for m in convolutions())
    given_gradients(here, there)
    mine, theirs = (accelops.optim.AdamW(m.parameters(), 1e-2, **options) for m in (there, here))
    for optimizer in (mine, theirs, mine, theirs):
        optimizer.step()
    for p, want in zip(there.parameters(), here.parameters(), strict=True):
        for key in ("master", "ema", "exp_avg"):
            close(mine.state[p][key], theirs.state[want][key])
        assert (p.cpu() != want).float().mean() < 0.02  # roundings of bf16 that fall on the other side


def test_a_loss_scale_is_divided_out_and_an_infinite_gradient_skips_the_step():
    here, there, _ = convolutions()
    scalers = [torch.amp.GradScaler(d, init_scale=8.0) for d in ("fpga", "cpu")]
    optimizers = [torch.optim.Adam(m.parameters(), 1e-2, fused=True) for m in (there, here)]
    for factor in (1.0, float("inf"), 1.0):
        given_gradients(here, there)
        for model, scaler, optimizer in zip((there, here), scalers, optimizers, strict=True):
            loss = sum(p.sum() for p in model.parameters())
            model.zero_grad()
            scaler.scale(loss * factor).backward()
            scaler.step(optimizer), scaler.update()
    assert scalers[0].get_scale() == scalers[1].get_scale() == 4.0
    for p, want in zip(there.parameters(), here.parameters(), strict=True):
        close(p, want)


def test_parameters_that_are_parts_of_one_memory_are_stepped_each():
    flat = torch.randn(23)
    given = flat.to("fpga")
    cuts = ((0, 3), (3, 10), (10, 23))  # no beats
    mine, theirs = ([whole[a:b].requires_grad_() for a, b in cuts] for whole in (given, flat.clone()))
    for optimizer, parts in ((torch.optim.Adam(mine), mine), (torch.optim.Adam(theirs), theirs)):
        for _ in range(3):
            for p in parts:
                p.grad = torch.ones_like(p)
            optimizer.step()
    for p, want in zip(mine, theirs, strict=True):
        close(p.detach(), want.detach())
    close(given, torch.cat([t.detach() for t in theirs]))


@pytest.mark.parametrize("index", [0, 1])
def test_a_cnn_trained_there_is_as_close_to_fp64_as_torchs(
    driver: Driver, emulated_board: Callable[[str], Any], index: int
):
    own = emulated_board(BOARDS[index])
    script = Script(lambda model: placed(model, f"fpga:{index}"), {}, torch.contiguous_format, nullcontext)
    with recorded(own) as launches:
        found = agreement.check(network(), batches(), 1e-2, script, (demo.SCRIPTS["torch"],))
    assert found.agree, found.worst
    assert {launch.kernel for launch in launches} == {"conv_fp32", "adam"}


def placed(model: nn.Module, device: str) -> nn.Module:
    """On the device, for scripts that do not know of devices."""
    model.register_forward_pre_hook(lambda _, inputs: inputs[0].to(device))
    model.register_forward_hook(lambda *call: call[-1].cpu())
    return model.to(device)


def test_what_the_board_refuses_falls_to_the_cpu_with_its_reason_counted():
    def calls() -> int:
        refused = accelops.explain("fpga").refused
        return sum(n for (op, why), n in refused.items() if op.startswith("aten::conv") and "float32 only" in why)

    before, x, w = calls(), torch.randn(1, 2, 4, 4).double(), torch.randn(3, 2, 3, 3).double()
    there = [t.to("fpga").requires_grad_() for t in (x, w)]
    F.conv2d(*there).sum().backward()
    here = [t.requires_grad_() for t in (x, w)]
    F.conv2d(*here).sum().backward()
    assert all(torch.equal(a.grad.cpu(), b.grad) for a, b in zip(there, here, strict=True)) and calls() == before + 3
    explanation = accelops.explain("conv", input=there[0], weight=there[1])
    assert "falls to the CPU" in str(explanation) and "float32 only" in str(explanation)
    x3, w3 = torch.randn(1, 2, 3, 3, 3), torch.randn(2, 2, 1, 1, 1)
    close(F.conv3d(x3.to("fpga"), w3.to("fpga")), F.conv3d(x3, w3))
    fused = nn.Parameter(torch.ones(3, device="fpga", dtype=torch.float64))
    fused.grad = torch.ones_like(fused)
    torch.optim.Adam([fused], 0.1, fused=True).step()
    assert fused.allclose(torch.full_like(fused, 0.9))


def test_a_target_asked_for_by_name_serves_or_says_why_not():
    here, there, x = convolutions()
    with accelops.use("reference"), pytest.raises(TargetUnavailable, match="not on fpga"):
        there(x.to("fpga"))
    with accelops.use("aten"), torch.no_grad():
        close(there(x.to("fpga")), here(x))
    with torch.no_grad():
        found = accelops.functional.conv2d(x.to("fpga"), there[0].weight, padding=1, activation="silu")
        close(found, F.silu(F.conv2d(x, here[0].weight, padding=1)))
    assert str(accelops.explain("conv", input=x.to("fpga"), weight=there[0].weight)).startswith("conv fprop: fpga with")


def test_buckets_of_tensors_there_are_packed_reduced_and_unpacked():
    tensors = [torch.randn(5, 3), torch.randn(7)]
    given, flat = [t.to("fpga") for t in tensors], torch.empty(22, device="fpga")
    torch.ops.accelops.bucket_pack_(given, flat, 0.5)
    close(flat, torch.cat([t.flatten() for t in tensors]) * 0.5)
    torch.ops.accelops.bucket_reduce_([flat, flat.clone()], flat)
    torch.ops.accelops.bucket_unpack_(flat, given)
    for found, want in zip(given, tensors, strict=True):
        close(found, want)


def test_boards_work_each_for_their_own_tensors(emulated_board: Callable[[str], Any]):
    here, there, x = convolutions()
    there.to("fpga:1")
    with torch.no_grad(), recorded(emulated_board("zcu104")) as second, recorded(emulated_board(BOARD)) as first:
        found = there(x.to("fpga:1"))
        assert found.device == torch.device("fpga:1") and len(second) == 3 and not first
        close(found.to("fpga:0"), here(x))
        with pytest.raises(RuntimeError, match="fpga:0 and fpga:1"):
            there(x.to("fpga:0"))
