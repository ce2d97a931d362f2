"""Prints, as JSON, how the Triton step compiles for a GPU that is not here: python -m tests.adam.compilation sm_90.

"wide" counts the instructions of `step` that load 16 bytes. Each way to block a chunk meets the kernels with the most tensors, the first one all dtypes; what only scales a bound
(`pieces`) is left out.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from typing import Any

import torch

from accelops.bench.triton_aot import compile_for
from accelops.kernels.adam import operands, triton
from accelops.kernels.adam.lists import Hyper, Lists
from accelops.kernels.adam.spec import AdamSpec

_operands = operands.operands


def number() -> torch.Tensor:
    return torch.empty((), device="meta")


def everything(spec: AdamSpec) -> tuple[Lists, Hyper]:
    """Coupled weight decay, and all numbers on the device."""
    lists, hyper = _operands(spec)
    there = {name: number() for name in ("lr", "grad_factor", "grad_scale", "found_inf")}
    return lists, dataclasses.replace(hyper, weight_decay=0.1, maximize=True, **there)


def counted_on_host(spec: AdamSpec) -> tuple[Lists, Hyper]:
    lists, hyper = _operands(spec)
    return dataclasses.replace(lists, state_steps=[torch.tensor(3.0) for _ in lists.params]), hyper


def cases() -> list[tuple[AdamSpec, Any]]:
    every = {"amsgrad": True, "ema": True, "device": "meta", "tensors": 3}
    return [
        (AdamSpec(10**6, 3, device="meta"), counted_on_host),
        (AdamSpec(10**6, **every), everything),
        (AdamSpec(10**6, 3, "bfloat16", "bfloat16", device="meta"), counted_on_host),
        (AdamSpec(10**6, 3, "float16", "float16", device="meta"), _operands),
        (AdamSpec(10**6, dtype="bfloat16", master=True, **every), everything),
        (AdamSpec(10**6, 3, "mixed", "mixed", device="meta"), _operands),
        (AdamSpec(10**6, dtype="mixed", master=True, **every), everything),
        (AdamSpec(10**6, 3, "bfloat16", "uint8", stochastic=True, device="meta"), counted_on_host),
        (AdamSpec(10**6, 3, "float32", "uint8", device="meta"), _operands),
    ]


def several(spec: AdamSpec) -> bool:
    return (spec.ema and spec.dtype != "mixed") or spec.stochastic


def main(architecture: str) -> None:
    configs = triton.configs

    def distinct(spec: AdamSpec) -> list[triton.Config]:
        found = configs(spec)
        return list({(c.block, c.num_warps): c for c in reversed(found)}.values()) if several(spec) else found[:1]

    triton.configs = distinct
    wide: list[int] = []
    warmup = triton.step.warmup

    def counting(*arguments: Any, **options: Any) -> Any:
        made = warmup(*arguments, **options)
        assembly = made.asm["ptx"] if "ptx" in made.asm else made.asm["amdgcn"]
        wide.append(len(re.findall(r"ld\.global\.v4\.b32|global_load_dwordx4", assembly)))
        return made

    triton.step.warmup = counting
    for spec, made in cases():
        operands.operands = made
        for compiled in compile_for(architecture, [spec]):
            found = {"wide": wide.pop()} if compiled.kernel == "step" else {}
            print(json.dumps({**dataclasses.asdict(compiled), **found}))


if __name__ == "__main__":
    main(sys.argv[1])
