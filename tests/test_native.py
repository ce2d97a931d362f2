"""The native extension itself: its threads, the choice of the instruction set, and what the linker made of it.

Threads are tested in a process of their own, so that a hang is a failure and other tests' threads do not matter; without
torch the extension runs on workers of its own, with torch on torch's.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import accelops._native

PRELUDE = """
import importlib.util, os, resource, sys, threading, time
import numpy as np

spec = importlib.util.spec_from_file_location("accelops._native", LIBRARY)
_native = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_native)

class Work:  # y = 2 * x over `chunks` chunks
    def __init__(self, chunks=8):
        self.layout = _native.BucketLayout([[chunks << 16]], [[1]], ["float32"])
        self.x = np.arange(chunks << 16, dtype=np.float32)
        self.y = np.empty_like(self.x)
        self.expected = (2 * self.x).tobytes()

    def run(self, threads):
        self.y.fill(np.nan)
        self.pack(threads)
        assert self.y.tobytes() == self.expected, threads

    def pack(self, threads):
        self.layout.pack("cpu", [self.x.ctypes.data], self.y.ctypes.data, "float32", 0, 2.0, False, threads)

work = Work()
"""
OWN, TORCHS = "", "import torch; torch.set_num_threads(4)\n"  # whose threads a process uses: see thread_pool.hpp
either = pytest.mark.parametrize("whose", [OWN, TORCHS], ids=["own", "torchs"])


def run(script: str, whose: str = OWN, **environment: str) -> str:
    library = f"LIBRARY = {accelops._native.__file__!r}\n"
    command = [sys.executable, "-c", library + whose + PRELUDE + script]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@either
def test_any_number_of_threads_gives_the_whole_result(whose: str) -> None:
    run("for _ in range(200):\n  for threads in (1, 2, 3, 4, 5, 6, 7, 8, 1, 8, 2): work.run(threads)", whose)


def test_workers_start_on_first_need_and_stay() -> None:
    script = (
        "seen = []\nfor threads in (1, 3, 2, 5): work.run(threads); seen.append(_native.pool_workers())\nprint(seen)"
    )
    assert run(script) == "[0, 2, 2, 4]"
    borrowed = torch.__version__ >= (2, 10)  # before, torch has no stable function that lends its threads
    assert run(script, TORCHS) == ("[0, 0, 0, 0]" if borrowed else "[0, 2, 2, 4]")


def test_each_call_asks_torch_how_many_threads_it_may_use() -> None:
    script = """
import torch
torch.set_num_threads(1)
from accelops.distributed import pack
x, y = torch.ones(2**20), torch.empty(2**20)
def threads_after(allowed):
    torch.set_num_threads(allowed)
    before = len(os.listdir("/proc/self/task"))
    pack([x], y, target="cpu")
    return len(os.listdir("/proc/self/task")) - before
print(threads_after(1), threads_after(3))
"""
    assert run(script) == "0 2"


@either
def test_python_threads_may_call_at_once(whose: str) -> None:
    script = """
failed = []
def many():
    try:
        mine = Work()
        for i in range(100): mine.run(1 + i % 4)
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=many) for _ in range(6)]
for t in threads: t.start()
for t in threads: t.join()
assert not failed, failed
"""
    run(script, whose)


FORK = """
def fork_and_work():
    child = os.fork()
    if child == 0:
        try:
            assert _native.pool_workers() == 0
            for threads in (4, 2, 1, 3): work.run(threads)
            assert _native.pool_workers() == 3
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@either
def test_a_forked_child_gets_workers_of_its_own(whose: str) -> None:
    run(FORK + "fork_and_work()\nwork.run(4)\nfor _ in range(10): fork_and_work(); work.run(4)", whose)


@either
def test_a_fork_while_another_thread_is_in_a_kernel(whose: str) -> None:
    script = """
end, other = threading.Event(), Work()
def keep_busy():
    while not end.is_set(): other.run(4)
thread = threading.Thread(target=keep_busy)
thread.start()
for _ in range(40): fork_and_work()
end.set()
thread.join()
work.run(4)
"""
    run(FORK + script, whose)


@either
def test_idle_threads_use_no_processor_time(whose: str) -> None:
    script = """
for _ in range(50): work.run(4)
time.sleep(0.05)
before = time.process_time()
time.sleep(0.5)
print(time.process_time() - before)
"""
    assert float(run(script, whose)) < 0.05


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the address space is measured by /proc")
def test_a_system_that_grants_no_more_threads_slows_the_call_and_no_more() -> None:
    granted = run("""
wide = Work(chunks=64)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, resource.RLIM_INFINITY))  # too little for the stacks of 63 workers
wide.pack(64)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(_native.pool_workers())
assert wide.y.tobytes() == wide.expected
wide.run(64)
""")
    assert int(granted) < 63


def test_the_instruction_set_can_be_lowered_and_not_raised() -> None:
    sets = ["baseline", "avx2", "avx512"]
    best = run("print(_native.isa())", ACCELOPS_ISA="")
    for asked in sets:
        chosen = run("work.run(2); print(_native.isa())", ACCELOPS_ISA=asked)
        assert chosen == min(asked, best, key=sets.index)
    assert run("print(_native.isa())", ACCELOPS_ISA="no_such_set") == best


def functions(library: Path) -> dict[str, list[str]]:
    """The mnemonics of every function of the library by its demangled name; local copies of one name together."""
    listing = subprocess.run(
        ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(library)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: dict[str, list[str]] = {}
    mnemonics: list[str] = []
    for line in listing.splitlines():
        header = re.match(r"[0-9a-f]+ <(.+)>:$", line)
        if header:
            mnemonics = found.setdefault(header[1], [])
        elif instruction := re.match(r"\s+[0-9a-f]+:\s+(\S+)", line):
            mnemonics.append(instruction[1])
    return found


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other machines have one instruction set")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump (Debian: apt install binutils)")
def test_no_function_shared_by_all_instruction_sets_uses_avx() -> None:
    # The linker keeps one copy of an inline function of the standard library. If it came from an object that was compiled
    # for AVX, older processors would crash in it. All AVX mnemonics, and of those in use no others, begin with v.
    found = functions(Path(accelops._native.__file__))
    per_set = re.compile(r"accelops::(avx2|avx512)::")
    assert any(per_set.search(name) and "vzeroupper" in code for name, code in found.items()), "stripped of its symbols"
    shared = {
        name: code for name, code in found.items() if not name.startswith("accelops::") and not per_set.search(name)
    }
    assert len(shared) > 100
    wrong = {name for name, code in shared.items() if any(mnemonic.startswith("v") for mnemonic in code)}
    assert not wrong, f"include less, or write it out, in kernels/*/cpu: {sorted(wrong)}"
