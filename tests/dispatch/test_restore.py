"""accelops.disable() gives torch back: what the dispatcher holds, the bits of results, the functional of Adam.

The override of a convolution stays registered (taking it away under running threads crashes) and is switched by a flag, so
the dispatcher's dump differs from stock torch's by exactly one line for each of the two ops, and by none that has gone.
Judged in a process of its own, where nothing was enabled before.
"""

from __future__ import annotations

import subprocess
import sys

PRELUDE = """
import threading
import torch
import torch.nn.functional as F
import torch.optim.adam as torch_adam

OPS = "aten::convolution", "aten::convolution_backward"

def dump():
    return {op: set(torch._C._dispatch_dump(op).splitlines()) for op in OPS}

def bits():
    generator = torch.Generator().manual_seed(3)
    results = []
    for groups, dtype in ((1, torch.float32), (16, torch.float32), (16, torch.bfloat16), (4, torch.float64)):
        x = torch.randn(2, 16, 9, 7, generator=generator).to(dtype).requires_grad_()
        w = torch.randn(16, 16 // groups, 3, 3, generator=generator).to(dtype).requires_grad_()
        y = F.conv2d(x, w, padding=1, groups=groups)
        results += [y.detach(), *torch.autograd.grad(y.square().sum(), (x, w))]
    weight = torch.randn(1000, generator=generator).requires_grad_()
    weight.grad = torch.randn(1000, generator=generator)
    torch.optim.AdamW([weight]).step()
    return [*results, weight.detach()]

stock, functional, expected = dump(), torch_adam.adam, bits()
import accelops
assert dump() == stock and torch_adam.adam is functional

def assert_torch_again():
    assert torch_adam.adam is functional
    now = dump()
    for op in OPS:
        (ours,) = now[op] - stock[op]
        assert ours.startswith("CPU: ") and "accelops" in ours and stock[op] <= now[op], ours
    with accelops.dispatch.select.observed() as specs:
        assert all(map(torch.equal, bits(), expected))
    assert not specs
"""


def run(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_after_disable() -> None:
    run("""
for _ in range(3):
    accelops.enable()
    assert torch_adam.adam is not functional
    with accelops.use("reference"):
        assert not all(map(torch.equal, bits()[:3], expected[:3]))  # really rerouted
    accelops.disable()
    assert_torch_again()
""")


def test_after_scopes_that_nest_and_end_by_exceptions() -> None:
    run("""
try:
    with accelops.enabled():
        with accelops.enabled(ops=("adam",)), accelops.use("reference"):
            bits()
            raise KeyError
except KeyError:
    pass
assert_torch_again()
with accelops.enabled(), accelops.enabled(ops=("conv",)):
    assert torch_adam.adam is functional
assert_torch_again()
try:
    accelops.enable(ops=("convolution",))
except ValueError:
    pass
assert_torch_again()
""")


def test_after_scopes_of_threads_that_overlap() -> None:
    run("""
inside, leave = threading.Barrier(4), threading.Barrier(4)
failed = []

def work(number):
    try:
        with accelops.enabled():
            inside.wait(60)
            bits()
            leave.wait(60)
            if number % 2:
                raise KeyError
    except KeyError:
        pass
    except BaseException as error:
        failed.append(error)

threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for t in threads: t.start()
for t in threads: t.join()
assert not failed, failed
assert_torch_again()
""")
