"""What accelops.enable() costs a call: a convolution so tiny that nothing else is left.

Stock torch runs in a process of its own, where accelops was never enabled; blocks of calls alternate between it and this
process. Fallen back: torch's kernel was selected. Selected: one of ours (asked for by name where no table has it; its own
time, which differs from that of torch's kernel, is in the figure). Switched off: accelops.disable() after enable(). On a GPU
it is the time until a call returns, its kernels launched and perhaps not yet run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F

from accelops.dispatch import reroute
from accelops.dispatch.select import select, use
from accelops.kernels.conv.operands import operands
from accelops.kernels.conv.spec import ConvSpec
from accelops.timing import Variant

from .rows import Job, Row, Setting, ran, row, selections_of

DENSE = ConvSpec("fprop", (1, 1, 3, 3), (1, 1, 1, 1), (1, 1), (0, 0), (1, 1))
DEPTHWISE = ConvSpec("fprop", (1, 8, 4, 4), (8, 1, 3, 3), (1, 1), (1, 1), (1, 1), groups=8)
PROBLEMS = {"fallen back": DENSE, "selected": DEPTHWISE, "switched off": DENSE}
DIRECTIONS = ("forward", "backward")
BLOCK = 200
FEWEST_BLOCKS = 31


def jobs(setting: Setting) -> list[Job]:
    def job(name: str, direction: str) -> Job:
        return Job(f"{name} {direction}", lambda _ceilings, seconds: _measure(name, direction, setting, seconds))

    return [job(name, direction) for name in PROBLEMS for direction in DIRECTIONS]


def call(spec: ConvSpec, direction: str) -> Callable[[], object]:
    """forward: conv2d without gradients; backward: autograd's whole walk back through one conv2d."""
    input, weight, _ = operands(spec)
    if direction == "forward":
        return lambda: F.conv2d(input, weight, None, spec.stride, spec.padding, spec.dilation, spec.groups)
    leaves = (input.requires_grad_(), weight.requires_grad_())
    output = F.conv2d(*leaves, None, spec.stride, spec.padding, spec.dilation, spec.groups)
    grad_output = torch.ones_like(output)
    return lambda: torch.autograd.grad(output, leaves, grad_output, retain_graph=True)


def _measure(name: str, direction: str, setting: Setting, seconds: float) -> Row:
    spec = replace(PROBLEMS[name], device=setting.device)
    variant = Variant(call(spec, direction), _context(name, spec, setting))
    if name == "switched off":
        with reroute.enabled():
            variant.run()
        what_ran = []
    else:
        what_ran = ran("accelops", selections_of(variant))
    stock, ours = [], []
    with _stock(name, direction, setting.device) as stock_block:
        start = perf_counter()
        while len(ours) < FEWEST_BLOCKS or perf_counter() - start < seconds:
            stock.append(stock_block())
            with variant.context():
                ours.append(_block(variant.run))
    extra = median(mine - theirs for mine, theirs in zip(ours[1:], stock[1:], strict=True))
    times = {"torch": stock[1:], "accelops": ours[1:]}  # the first block of each warms up
    return row(name, direction, times, what_ran, extra_microseconds=1e6 * extra)


def _context(name: str, spec: ConvSpec, setting: Setting) -> Callable[[], AbstractContextManager[object]]:
    if name == "switched off":
        return nullcontext
    target = setting.target or {"cpu": "cpu", "cuda": "triton"}[setting.device]
    by_name = name == "selected" and select(spec).target == "aten"

    @contextmanager
    def context() -> Iterator[None]:
        with reroute.enabled(ops=("conv",)), use(target) if by_name else nullcontext():
            yield

    return context


def _block(run: Callable[[], object]) -> float:
    start = perf_counter()
    for _ in range(BLOCK):
        run()
    seconds = (perf_counter() - start) / BLOCK
    if torch.cuda.is_available():  # what is still on its way must not hold up the next block
        torch.cuda.synchronize()
    return seconds


@contextmanager
def _stock(name: str, direction: str, device: str) -> Iterator[Callable[[], float]]:
    """A process in which accelops is never enabled, and a function that has it time one block."""
    program = "from accelops.bench.overhead import serve; serve()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None

    def ask(question: object) -> float:
        process.stdin.write(json.dumps(question) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return float(process.stdout.readline())  # type: ignore[union-attr]

    try:
        ask([name, direction, device, torch.get_num_threads()])
        yield lambda: ask("again")
    finally:
        process.stdin.close()
        process.wait()


def serve() -> None:
    """The stock process: the problem on the first line, then the time of a block for each line."""
    name, direction, device, threads = json.loads(sys.stdin.readline())
    torch.set_num_threads(threads)
    run = call(replace(PROBLEMS[name], device=device), direction)
    print(_block(run), flush=True)
    for _ in sys.stdin:
        print(_block(run), flush=True)
