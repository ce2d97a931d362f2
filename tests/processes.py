"""A function in several processes at once, a process group of gloo over them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

DEADLINE = 300  # seconds


def run_in_processes(function: Callable[..., None], count: int, folder: Path, *args: Any) -> None:
    """`function(*args)` in `count` new processes, each with one thread; an exception in one of them is raised here."""
    context = torch.multiprocessing.spawn(_run, (function, count, folder, args), nprocs=count, join=False)
    end = time.monotonic() + DEADLINE
    try:
        while not context.join(timeout=1):
            if time.monotonic() > end:
                raise TimeoutError(f"{count} processes of {function.__name__} did not end within {DEADLINE} s")
    finally:
        for process in context.processes:
            process.kill()


def _run(rank: int, function: Callable[..., None], count: int, folder: Path, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=count)
    function(*args)
    torch.distributed.destroy_process_group()
    # gloo's threads outlive their group, and one that lets go of a tensor while Python shuts down aborts the process
    # (https://github.com/pytorch/pytorch/pull/179291). So Python is not shut down.
    os._exit(0)
