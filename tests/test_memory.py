"""keep_memory: large blocks are faulted in once instead of on every allocation, and only while it is on."""

from __future__ import annotations

import subprocess
import sys

import pytest

import accelops

MEASURE = """
import resource, torch, accelops

def faults_of_allocating(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.empty(megabytes << 18).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert accelops.keep_memory(False)
off = faults_of_allocating(64)
assert accelops.keep_memory(True) and accelops.keep_memory(True)
warm = [faults_of_allocating(64) for _ in range(5)]
on = faults_of_allocating(64)
assert accelops.keep_memory(False)
print(off, on, faults_of_allocating(512))  # larger than any hole that is left in the heap
"""


@pytest.mark.skipif(not accelops.keep_memory(False), reason="this C library has no mallopt")
def test_page_faults_vanish_while_it_is_on_and_come_back_after():
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=120, check=True)
    off, on, off_again = map(int, run.stdout.split())
    assert off > 100  # huge pages make them fewer than one per 4 KiB
    assert on < off / 10
    assert off_again > 100
