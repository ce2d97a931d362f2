"""An FPGA board as a device of torch's: memory, views, copies, modules, checkpoints, and the CPU for what no board does."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import accelops
from accelops import TargetUnavailable
from accelops.targets.fpga.device import build

from .on_device import BOARD, registered


@pytest.fixture(scope="module", autouse=True)
def device(emulated_board: Callable[[str], Any]) -> Iterator[torch.device]:
    yield from registered(emulated_board(BOARD), emulated_board("zcu104"))


def there(*shape: int) -> tuple[Tensor, Tensor]:
    """A random tensor, and the same on the board."""
    tensor = torch.randn(shape)
    return tensor, tensor.to("fpga")


def test_values_go_there_and_back():
    here, x = there(3, 4)
    assert x.device == torch.device("fpga:0") and x.is_fpga and x.data_ptr() and x.untyped_storage().nbytes() == 48
    assert torch.equal(x.cpu(), here) and torch.equal(x.fpga(), x) and repr(x).endswith("device='fpga:0')")


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.int64, torch.uint8, torch.bfloat16, torch.complex64, torch.float64]
)
def test_every_dtype_goes_there_and_back(dtype: torch.dtype):
    here = torch.randn(3, 4).mul(3).to(dtype)
    assert torch.equal(here.to("fpga").cpu(), here)


def test_factories_make_tensors_there():
    assert torch.ones(2, 3, device="fpga").sum().item() == 6
    assert torch.arange(4, device="fpga").tolist() == [0, 1, 2, 3] and torch.zeros(0, device="fpga").shape == (0,)
    with torch.device("fpga"):
        assert torch.empty(2, 3).device.type == nn.Linear(2, 2).weight.device.type == "fpga"


def test_in_place_ops_write_the_tensor_itself():
    x = torch.ones(3, device="fpga")
    assert x.add_(1) is x and x.tolist() == [2, 2, 2]
    out = torch.empty(3, device="fpga")
    assert torch.mul(x, 2, out=out) is out and out.tolist() == [4, 4, 4]
    assert torch.mul(x, 2, out=torch.empty(0, device="fpga")).tolist() == [4, 4, 4]


def test_views_share_memory():
    here, x = there(4, 6)
    for view in (lambda t: t[1], lambda t: t.t()[2:], lambda t: t.view(-1), lambda t: t.unfold(1, 2, 3)[0], lambda t: t.expand(4, 6).diagonal(), lambda t: t.view(2, 2, 6).transpose(0, 1)):  # fmt: skip
        view(x).add_(1), view(here).add_(1)
        assert view(x).stride() == view(here).stride() and view(x).data_ptr() - x.data_ptr() == view(here).data_ptr() - here.data_ptr()  # fmt: skip
    assert torch.equal(x.cpu(), here)
    pairs = torch.view_as_complex(x.view(4, 3, 2))
    torch.view_as_real(pairs).zero_()
    assert not x.any() and pairs.conj().imag.cpu().abs().sum() == 0


def test_strides_are_kept_on_the_way():
    here = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert here.to("fpga").is_contiguous(memory_format=torch.channels_last)
    assert here[:, 1:].to("fpga").cpu().equal(here[:, 1:]) and here.conj().to("fpga").cpu().equal(here)
    complex_ = torch.randn(3, dtype=torch.complex64)
    assert complex_.to("fpga").conj().cpu().equal(complex_.conj()) and complex_.conj().to("fpga").cpu().equal(complex_.conj())  # fmt: skip


def test_memory_can_grow_and_be_exchanged():
    x = torch.arange(4.0, device="fpga")
    x.resize_(8)[4:] = 7
    assert x.tolist() == [0, 1, 2, 3, 7, 7, 7, 7]
    y = torch.empty(0, device="fpga").set_(x.untyped_storage(), 2, (2,), (1,))
    assert y.tolist() == [2, 3]
    x.untyped_storage().resize_(64)
    assert x.tolist() == [0, 1, 2, 3, 7, 7, 7, 7] and x.untyped_storage().nbytes() == 64


def test_what_no_board_does_falls_to_the_cpu_and_is_counted():
    before = accelops.explain("fpga").fallbacks.get("aten::cumsum", 0)
    _, x = there(5)
    assert torch.equal(x.cumsum(0).cpu(), x.cpu().cumsum(0))
    after = accelops.explain("fpga")
    assert after.fallbacks["aten::cumsum"] == before + 1
    assert (
        f"aten::cumsum fell to the CPU {before + 1} times" in str(after)
        and after.to_dict()["fallbacks"]["aten::cumsum"]
    )


def test_tensors_of_several_devices_are_refused_but_where_accelerators_take_them():
    here, x = there(3, 4)
    for wrong in (lambda: x + here, lambda: torch.mm(x, here.t()), lambda: torch.cat([x, here]), lambda: F.linear(here, x), lambda: x + x.to("fpga:1")):  # fmt: skip
        with pytest.raises(RuntimeError, match="same device"):
            wrong()
    assert torch.equal((x + torch.tensor(1.0)).cpu(), here + 1)
    rows = torch.tensor([2, 0])
    assert torch.equal(x[rows].cpu(), here[rows])


def test_autograd_goes_through():
    _, x = there(3)
    x.requires_grad_()
    (x * x).sum().backward()
    assert torch.equal(x.grad.cpu(), 2 * x.detach().cpu()) and x.grad.device.type == "fpga"


AUTOGRAD = """
import sys, threading, warnings
import torch, accelops
from accelops.targets.fpga import boards
from accelops.targets.fpga.driver import Driver
from accelops.targets.fpga.emulator.machine import Machine
from tests.fpga.in_process import InProcess

def backward(device):
    x = torch.ones(3, device=device, requires_grad=True)
    (x * x).sum().backward()
    assert x.grad.tolist() == [2, 2, 2]
    print("right", flush=True)

if sys.argv[1] == "late":
    backward("cpu")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for boards_given in (1, 2):
        accelops.fpga_device(*(Driver(InProcess(Machine(boards.board("pynq-z2")))) for _ in range(boards_given)))
print([str(w.message)[:40] for w in said])
backward("fpga:1")
if sys.argv[1] == "first":
    thread = threading.Thread(target=backward, args=("fpga:1",))
    thread.start(), thread.join()
"""


@pytest.mark.parametrize("when", ["first", "late"])
def test_autograd_goes_through_in_threads_where_the_device_comes_first_and_without_them_where_it_comes_late(when: str):
    command = [sys.executable, "-W", "ignore", "-c", AUTOGRAD, when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert done.stdout.count("right") == 2 and not done.returncode, done.stderr
    assert ("autograd ran before" in done.stdout) == (when == "late")


def test_random_numbers_are_the_cpus():
    torch.manual_seed(3)
    want = torch.randn(5)
    torch.manual_seed(3)
    assert torch.equal(torch.randn(5, device="fpga").cpu(), want)
    assert torch.equal(torch.randn(5, device="fpga", generator=torch.Generator("fpga").manual_seed(3)).cpu(), want)
    with torch.random.fork_rng(devices=[0], device_type="fpga"):
        torch.fpga.manual_seed_all(3)
        assert torch.equal(
            F.dropout(torch.ones(9, device="fpga")).cpu(), (torch.manual_seed(3), F.dropout(torch.ones(9)))[1]
        )


def test_modules_go_there_and_can_be_copied():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    x = torch.randn(2, 3, 5, 5)
    want = copy.deepcopy(model)(x)
    twin = copy.deepcopy(model.to("fpga"))
    assert all(p.device.type == "fpga" and isinstance(p, nn.Parameter) for p in twin.parameters())
    for found in (model(x.to("fpga")), twin.train()(x.to("fpga")), copy.deepcopy(model).cpu()(x)):
        torch.testing.assert_close(found.cpu(), want, rtol=1e-5, atol=1e-5)
    assert nn.Conv2d(3, 4, 3, device="fpga").weight.device.type == "fpga"


def saved(what: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(what, file)
    file.seek(0)
    return file


def test_checkpoints_are_loaded_where_they_are_asked_for():
    here, x = there(3)
    state = {"x": x, "view": x[1:], "second": x.to("fpga:1")}
    for where, devices in ((None, ("fpga:0", "fpga:1")), ("cpu", ("cpu", "cpu")), ("fpga:1", ("fpga:1", "fpga:1"))):
        found = torch.load(saved(state), map_location=where)
        assert (str(found["x"].device), str(found["second"].device)) == devices
        assert torch.equal(found["view"].cpu(), here[1:]) and found["view"].data_ptr() == found["x"].data_ptr() + 4
    assert torch.load(saved(here), map_location="fpga").device.type == "fpga"
    assert torch.equal(pickle.loads(pickle.dumps(x)).cpu(), here)


def test_an_optimizers_state_dict_goes_both_ways():
    model = nn.Linear(3, 2).to("fpga")
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    model(torch.randn(4, 3, device="fpga")).sum().backward()
    optimizer.step()
    here = nn.Linear(3, 2)
    on_cpu = torch.optim.Adam(here.parameters(), fused=True)
    on_cpu.load_state_dict(torch.load(saved(optimizer.state_dict()), map_location="cpu"))
    here.load_state_dict({name: t.cpu() for name, t in model.state_dict().items()})
    back = torch.optim.Adam(model.parameters(), fused=True)
    back.load_state_dict(on_cpu.state_dict())
    moments = back.state[model.weight]["exp_avg"]
    assert moments.device.type == "fpga" and torch.equal(moments.cpu(), optimizer.state[model.weight]["exp_avg"].cpu())


def test_a_loader_that_pins_gives_its_batches():
    loader = torch.utils.data.DataLoader(torch.arange(6.0), batch_size=3, pin_memory=True)
    assert [batch.to("fpga", non_blocking=True).tolist() for batch in loader] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_functions_run_there(backend: str):
    convolution = nn.Conv2d(2, 3, 3).to("fpga")
    _, x = there(1, 2, 4, 4)
    compiled = torch.compile(lambda t: convolution(t) * 2 + 1, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x).cpu(), (convolution(x) * 2 + 1).cpu())


def test_autocast_is_refused_by_name():
    with pytest.raises(RuntimeError, match="compute in float32; leave autocast out"):
        torch.autocast("fpga")


def test_torch_fpga_says_what_torch_asks():
    assert torch.fpga.is_available() and torch.fpga.device_count() == 2 and torch.fpga.current_device() == 0
    assert "emulated" in torch.fpga.get_device_name() and "ZCU104" in torch.fpga.get_device_name("fpga:1")
    with torch.fpga.device(1):
        assert torch.fpga.current_device() == 1 and torch.empty(1, device="fpga").device.index == 1
    assert torch.empty(1, device="fpga").device.index == 0 and torch.empty(1, device="fpga:1").device.index == 1
    torch.fpga.synchronize(), torch.fpga.set_device("fpga:0")
    assert torch.accelerator.current_accelerator() == torch.device("fpga")
    for wrong in (lambda: torch.fpga.set_device(2), lambda: torch.empty(1, device="fpga:7"), lambda: torch.fpga.memory_allocated(5)):  # fmt: skip
        with pytest.raises(RuntimeError, match="no device fpga:"):
            wrong()
    with pytest.raises(ValueError, match="no board"):
        torch.fpga.set_device("cpu")


def test_without_a_compiler_the_error_names_one(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("ACCELOPS_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(TargetUnavailable, match="apt install g\\+\\+"):
        build.library()
    monkeypatch.setenv("CXX", "nonsense++")
    with pytest.raises(TargetUnavailable, match="nonsense"):
        build.library()


def test_a_compiler_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("ACCELOPS_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match="needs a compiler of C\\+\\+20"):
        build.library()
    assert [path.suffix for path in (tmp_path / "fpga-device").iterdir()] in ([".lock"], [])


def test_a_fork_cannot_use_its_parents_board():
    x = nn.Conv2d(2, 4, 1).to("fpga")(torch.randn(1, 2, 2, 2, device="fpga"))  # the board alone has it
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            x.sum()
            said = "nothing"
        except RuntimeError as error:
            said = str(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert "forked process" in answer.read()
    os.waitpid(child, 0)
    assert x.isfinite().all()
