"""Forked processes: a child and its parent go on with a training each for itself, and DataLoader workers convolve.

torch's own OpenMP threads do not survive a fork, ours are made anew; so a child's tensors are large enough for several
threads, and what is compared is bit for bit. In a process of its own, so that a hang is a failure.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

ADAM = """
import os, tempfile
import numpy as np
import torch
import accelops

torch.set_num_threads(4)
if REROUTED:
    accelops.enable()
kind = torch.optim.Adam if REROUTED else accelops.optim.Adam
generator = torch.Generator().manual_seed(0)
weights = [torch.randn(n, generator=generator).requires_grad_() for n in (300_001, 7, 120_000)]
for w in weights:
    w.grad = torch.randn(w.shape, generator=generator)
optimizer = kind(weights)
optimizer.step()  # the parent's threads are up when it forks

def two_steps():
    for _ in range(2):
        optimizer.step()
    return b"".join(w.detach().numpy().tobytes() for w in weights)

with tempfile.TemporaryFile() as file:
    child = os.fork()
    if child == 0:
        try:
            os.write(file.fileno(), two_steps())
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    mine = two_steps()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    file.seek(0)
    assert file.read() == mine
"""

LOADER = """
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
import accelops

class Blurred(Dataset):
    def __len__(self):
        return 24
    def __getitem__(self, index):
        image = torch.randn(1, 16, 40, 40, generator=torch.Generator().manual_seed(index))
        return F.conv2d(image, torch.full((16, 1, 5, 5), 0.04), padding=2, groups=16)[0]

def epoch(workers):
    return torch.cat(list(DataLoader(Blurred(), batch_size=4, num_workers=workers)))

accelops.enable()
with accelops.use("cpu"):
    here = epoch(0)
    assert torch.equal(epoch(2), here)
    assert torch.equal(epoch(2), here)
accelops.disable()
torch.testing.assert_close(here, epoch(0))
"""


def run(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


@pytest.mark.parametrize("rerouted", [False, True], ids=["ours", "rerouted"])
def test_child_and_parent_step_alike_after_a_fork(rerouted: bool) -> None:
    run(f"REROUTED = {rerouted}\n" + ADAM)


def test_workers_of_a_data_loader_convolve_as_their_parent() -> None:
    run(LOADER)
