"""What goes wrong with a board that tensors lie on: no partial result is ever read, nothing falls to the CPU unasked, and
what the board does not alone have is never lost."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import accelops
from accelops.targets.fpga import boards
from accelops.targets.fpga.device import memory
from accelops.targets.fpga.driver import Driver
from accelops.targets.fpga.emulator.faults import parse
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.errors import BoardHung, BoardLost

from . import launching
from .launching import PYNQ
from .on_device import BOARD, registered


@pytest.fixture
def machine() -> Machine:
    return Machine(boards.board(BOARD))


@pytest.fixture
def driver(machine: Machine) -> Iterator[Driver]:
    with launching.driving(machine, "in process") as made:
        for _ in registered(made):
            yield made


@pytest.fixture
def convolution(driver: Driver) -> nn.Module:
    """On the board, loaded and run once."""
    torch.manual_seed(0)
    module = nn.Conv2d(8, 8, 3, padding=1).to("fpga").requires_grad_(False)
    module(given())
    return module


def given() -> Tensor:
    return torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(1)).to("fpga")


def on_cpu(module: nn.Module, x: Tensor) -> Tensor:
    return nn.functional.conv2d(x.cpu(), module.weight.cpu(), module.bias.cpu(), padding=1)


def test_a_hang_is_raised_and_the_next_use_is_right(machine: Machine, driver: Driver, convolution: nn.Module):
    x = given()
    refused, fallbacks = accelops.explain("fpga").refused, accelops.explain("fpga").fallbacks
    machine.faults.add(parse("hang"))
    with pytest.raises(BoardHung, match="conv_fp32 did not finish"):
        convolution(x)
    assert accelops.explain("fpga").refused == refused and accelops.explain("fpga").fallbacks == fallbacks
    torch.testing.assert_close(convolution(x).cpu(), on_cpu(convolution, x))
    assert driver.counts.reloads == 1


def test_a_parameter_at_which_a_step_failed_is_as_before_or_cannot_be_read(machine: Machine, driver: Driver):
    values = torch.randn(9)
    other, weight = (nn.Parameter(values.to("fpga")) for _ in range(2))
    other.grad, weight.grad = torch.ones_like(weight), torch.ones_like(weight)
    torch.optim.Adam([other]).step()  # the overlay is loaded
    optimizer = torch.optim.Adam([weight], 0.1)
    machine.faults.add(parse("hang"))
    with pytest.raises(BoardHung):
        optimizer.step()
    assert torch.equal(weight.detach().cpu(), values) and optimizer.state[weight]["step"].item() == 0
    optimizer.step()  # from now on the board alone has it
    machine.faults.add(parse("hang"))
    with pytest.raises(BoardHung):
        optimizer.step()
    for use in (lambda: weight.cpu(), lambda: weight + 1, lambda: print(weight), optimizer.step):
        with pytest.raises(BoardHung, match="holds no result"):
            use()
    with torch.no_grad():
        weight.copy_(values)  # all of it anew
    assert torch.equal(weight.detach().cpu(), values)


def test_what_only_a_lost_board_had_is_lost_and_all_else_is_not(
    machine: Machine, driver: Driver, convolution: nn.Module
):
    x, read = given(), convolution(given())
    want, lost = read.cpu(), convolution(x)
    machine.faults.add(parse("drop"))
    with pytest.raises(BoardLost):
        lost.cpu()
    with pytest.raises(BoardLost):
        convolution(x)
    assert torch.equal(read.cpu(), want)  # was fetched before
    with launching.driving(Machine(boards.board(BOARD)), "in process") as another:
        accelops.fpga_device(another)
        torch.testing.assert_close(convolution(x).cpu(), want)
        for use in (lambda: lost + 1, lambda: convolution(lost)):
            with pytest.raises(BoardLost):
                use()
        lost.copy_(x)
        torch.testing.assert_close(convolution(lost).cpu(), want)


def test_another_board_takes_over_with_all_values(driver: Driver, convolution: nn.Module):
    x = given()
    only_there, want = convolution(x), on_cpu(convolution, x)
    with launching.driving(Machine(boards.board("zcu104")), "in process") as another:
        accelops.fpga_device(another)
        assert "ZCU104" in torch.fpga.get_device_name()
        torch.testing.assert_close(only_there.cpu(), want)
        torch.testing.assert_close(convolution(x).cpu(), want)
        assert another.counts.launches


def test_memory_that_runs_out_is_taken_from_copies(machine: Machine, driver: Driver, convolution: nn.Module):
    x = given()
    only_there, want = convolution(x), on_cpu(convolution, x)
    held = torch.fpga.memory_allocated()
    machine.faults.add(parse("out-of-memory*2"))  # also after idle memory was given back
    torch.testing.assert_close(convolution(torch.cat([x, x])).cpu(), torch.cat([want, want]))
    assert held > torch.fpga.memory_allocated() and machine.faults.waiting() == []
    torch.testing.assert_close(only_there.cpu(), want)


def test_copies_take_a_bounded_part_of_the_memory(
    driver: Driver, convolution: nn.Module, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "PART_OF_MEMORY", driver.board.ddr.bytes // 4096)
    accelops.fpga_device(driver)  # anew
    given_ = [given() + i for i in range(12)]
    made = [convolution(x) for x in given_]
    assert torch.fpga.memory_allocated() <= 4096 < 12 * 1024
    for x, y in zip(given_, made, strict=True):
        torch.testing.assert_close(y.cpu(), on_cpu(convolution, x))


def test_freed_tensors_give_their_memory_back(driver: Driver, convolution: nn.Module):
    def held() -> int:
        gc.collect()
        return torch.fpga.memory_allocated()

    before = held()
    outputs = [convolution(given()) for _ in range(3)]
    assert held() > before and torch.fpga.max_memory_allocated() >= held()
    outputs.clear()
    assert held() == before
    kept = convolution(given())
    torch.fpga.empty_cache()
    assert held() == 0 and torch.fpga.memory_stats()["fetched"] > 0
    torch.testing.assert_close(kept.cpu(), on_cpu(convolution, given()))


@PYNQ
def test_a_model_is_trained_behind_the_real_client(machine: Machine):
    torch.manual_seed(0)
    here = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    x, losses = torch.randn(4, 3, 6, 6), []
    with launching.driving(machine, "pynq") as driver:
        for device in registered(driver):
            for place in ("cpu", device):
                model = nn.Sequential(*here).to("cpu")
                state = {name: t.clone() for name, t in model.state_dict().items()}
                model.to(place)
                optimizer = torch.optim.Adam(model.parameters(), 1e-2)
                for _ in range(3):
                    loss = model(x.to(place)).square().mean()
                    optimizer.zero_grad(), loss.backward(), optimizer.step()
                    losses.append(loss.item())
                model.to("cpu").load_state_dict(state)
            stats = torch.fpga.memory_stats()
    torch.testing.assert_close(losses[3:], losses[:3], rtol=1e-5, atol=1e-6)
    assert stats["launches"] > 20 and stats["flushed"] and stats["fetched"]
