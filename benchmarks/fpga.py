"""Runs the kernels for FPGA boards on every board that answers, holds each result against fp64, and models a step of training.

    accelops fpga emulate --board pynq-z2 --port 7967 &
    accelops fpga emulate --board zcu104 --port 7968 &
    PYNQ_REMOTE_DEVICES=127.0.0.1:7967,127.0.0.1:7968 python benchmarks/fpga.py benchmarks/results/fpga.json

Emulated boards give evidence of the kind "simulated". Of time they say nothing: what is modelled comes from the cycle model
(targets/fpga/model.py), for the launches that the kernels really make. Run benchmarks/record.py afterwards.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from accelops.bench import suites
from accelops.information import versions
from accelops.judge import every_config
from accelops.kernels.adam.operands import operands as adam_operands
from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.bucket.spec import BucketSpec
from accelops.kernels.conv.operands import operands as conv_operands
from accelops.kernels.conv.spec import ConvSpec
from accelops.kernels.spec import Spec
from accelops.targets import fpga
from accelops.targets.fpga.boards import Board
from accelops.targets.fpga.driver import Driver
from accelops.targets.fpga.model import Estimate

BATCH = 8  # images of the modelled step
NETWORK = "resnet50"


def convolution(direction: str, c: int, k: int, size: int, kernel: int, stride: int = 1, **more: Any) -> ConvSpec:
    return ConvSpec(
        direction=direction,
        input=(2, c, size, size),
        weight=(k, c // more.get("groups", 1), kernel, kernel),
        stride=(stride,) * 2,
        padding=(kernel // 2,) * 2,
        dilation=(1, 1),
        **more,
    )


def specs() -> list[Spec]:
    """Layers as networks have them, with fewer channels and pixels: C-simulation makes some million products a second."""
    found: list[Spec] = []
    for direction in ("fprop", "dgrad", "wgrad"):
        biased = {"bias": direction != "dgrad"}
        found += [
            convolution(direction, 16, 24, 14, 3, **biased, activation="relu"),
            convolution(direction, 16, 24, 14, 3, 2, **biased),
            convolution(direction, 32, 16, 14, 1, **biased),
            convolution(direction, 3, 16, 32, 7, 2, **biased),
            convolution(direction, 12, 12, 12, 3, 1, groups=12, memory_format="channels_last"),
            convolution(direction, 16, 16, 7, 2, 2, transposed=True, output_padding=(0, 0)),
        ]
    found += [
        AdamSpec(100_003, 7),
        AdamSpec(50_001, 3, amsgrad=True, ema=True),
        AdamSpec(50_001, 3, "bfloat16", master=True),
    ]
    for wire in ("float32", "bfloat16"):
        found += [
            BucketSpec("reduce", 60_001, wire_dtype=wire, ranks=4),
            BucketSpec("pack", 60_001, 5, wire_dtype=wire, error_feedback=wire == "bfloat16"),
            BucketSpec("unpack", 60_001, 5, wire_dtype=wire),
        ]
    return found


@contextmanager
def launched(driver: Any) -> Iterator[list[Estimate]]:
    """Collects what the launches of this context are modelled to cost."""
    made: list[Estimate] = []
    run = driver.run

    def noted(kernel: str, estimate: Estimate, **arguments: Any) -> Any:
        made.append(estimate)
        return run(kernel, estimate, **arguments)

    with patch.object(driver, "run", noted):
        yield made


def judged(driver: Driver, spec: Spec) -> dict[str, Any]:
    """One row. Raises AssertionError where the kernel is wrong."""
    with fpga.on(driver), launched(driver) as launches:
        ((config, share),) = every_config(spec, "fpga", seed=0)
    assert isinstance(share, float) and share <= 1, f"{spec} on {driver.board.name}: {share}"
    return {
        "board": driver.board.name,
        "spec": asdict(spec),  # type: ignore[call-overload]
        "ran": [{"op": spec.op, "target": "fpga", "config": asdict(config)}],
        "share_of_allowed_error": round(share, 4),
        "launches": len(launches),
        "modelled_seconds": sum(estimate.seconds for estimate in launches),
    }


@dataclass
class Tally:
    """A board that makes nothing of its launches: for what they are modelled to cost, whatever their size."""

    board: Board
    kernels: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    __hash__ = object.__hash__

    def allocate(self, nbytes: int) -> Memory:
        return Memory(nbytes)

    def run(self, kernel: str, estimate: Estimate, **arguments: Any) -> None:
        self.kernels[kernel] += 1
        self.seconds += estimate.seconds


@dataclass
class Memory:
    nbytes: int

    def write(self, array: Any, offset: int = 0) -> None:
        pass

    def read(self, dtype: Any, count: int, offset: int = 0) -> np.ndarray:
        return np.zeros(count, dtype)

    def free(self) -> None:
        pass

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def modelled_step(board: Board) -> list[dict[str, Any]]:
    """All convolutions of NETWORK, by direction, and Adam: launches and seconds, and their part of the array's peak."""
    array = board.sizes["conv_fp32"]
    peak = 2 * array["inputs"] * array["outputs"] * board.clock_mhz * 1e6
    rows = []
    for direction in ("fprop", "dgrad", "wgrad"):
        launches, seconds, flops = 0, 0.0, 0
        for case in suites.conv_cases(NETWORK, BATCH):
            if case.spec.direction == direction:
                tally = tallied(board, case.spec, conv_operands(case.spec))
                launches += case.multiplicity * tally.kernels["conv_fp32"]
                seconds += case.multiplicity * tally.seconds
                flops += case.multiplicity * case.spec.flops
        reached = flops / seconds
        rows.append(
            {
                "board": board.name,
                "what": f"{direction} of {NETWORK}",
                "images": BATCH,
                "launches": launches,
                "modelled_seconds": seconds,
                "flops_per_second": reached,
                "of_peak": round(reached / peak, 3),
            }
        )
    spec = AdamSpec(25_557_032, 161)
    tally = tallied(board, spec, adam_operands(spec))
    rows.append(
        {
            "board": board.name,
            "what": f"adam of {NETWORK}",
            "launches": tally.kernels["adam"],
            "modelled_seconds": tally.seconds,
            "bytes_per_second": spec.bytes / tally.seconds,
        }
    )
    return rows


def tallied(board: Board, spec: Spec, given: tuple[Any, ...]) -> Tally:
    tally = Tally(board)
    with fpga.on(tally):  # type: ignore[arg-type]
        module = import_module(f"accelops.kernels.{spec.op}.fpga")
        module.run(module.configs(spec)[0], spec, *given)
    return tally


def main(output: Path) -> None:
    boards = fpga.found()
    if not boards:
        sys.exit("no board answers; start one: accelops fpga emulate --board pynq-z2, and set PYNQ_REMOTE_DEVICES")
    emulated = any(driver.emulated for driver in boards)
    evidence = {
        "kind": "simulated" if emulated else "measured",
        "device": ", ".join(driver.board.name for driver in boards) + (", emulated" if emulated else ""),
        "versions": versions("numpy", "pynq"),
        "date": datetime.date.today().isoformat(),
        "command": f"python benchmarks/fpga.py {output}",
    }
    rows = [judged(driver, spec) for driver in boards for spec in specs()]
    modelled = [row for driver in boards for row in modelled_step(driver.board)]
    output.write_text(json.dumps({"evidence": evidence, "rows": rows, "modelled": modelled}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
