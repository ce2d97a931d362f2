"""keep_memory: large blocks are faulted in once instead of on every allocation, and only while it is on."""

from __future__ import annotations

import subprocess
import sys

import pytest

import accelops

MEASURE = """
import resource, torch, accelops

def faults_of_large_allocations():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.empty(16_000_000).fill_(1.0)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

counts = []
for keep in (False, True, True, False):
    assert accelops.keep_memory(keep)
    faults_of_large_allocations()
    counts.append(faults_of_large_allocations())
print(*counts)
"""


@pytest.mark.skipif(not accelops.keep_memory(False), reason="this C library has no mallopt")
def test_page_faults_vanish_while_it_is_on_and_come_back_after():
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=120, check=True)
    off, on, still_on, off_again = map(int, run.stdout.split())
    assert off > 100  # huge pages make them fewer than one per 4 KiB
    assert on < off / 10
    assert still_on < off / 10
    assert off_again > off / 2
