"""Every bucket direction over the sizes of buckets, against torch's own kernels, interleaved.

    python benchmarks/bucket_sizes.py benchmarks/results/bucket_sizes.json

Each row holds the Spec, the fastest implementation and its Config, and torch's median time over that of each target.
"""

from __future__ import annotations

import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from accelops.dispatch import tune
from accelops.dispatch.tuned import describe
from accelops.kernels.bucket.spec import BucketSpec
from accelops.targets.cpu import device_name

MEBI = 2**20
SIZES = (0.25, 1, 4, 25, 100)  # MiB of float32 tensors
VARIANTS = (
    {"direction": "pack", "wire_dtype": "float32"},
    {"direction": "pack", "wire_dtype": "bfloat16"},
    {"direction": "pack", "wire_dtype": "bfloat16", "error_feedback": True},
    {"direction": "unpack", "wire_dtype": "float32"},
    {"direction": "unpack", "wire_dtype": "bfloat16"},
    {"direction": "reduce", "wire_dtype": "float32", "ranks": 4},
    {"direction": "reduce", "wire_dtype": "bfloat16", "ranks": 4},
)


def rows(seconds: float) -> list[dict[str, object]]:
    measured = []
    for mebibytes in SIZES:
        numel = int(mebibytes * MEBI / 4)
        for variant in VARIANTS:
            tensors = 1 if variant["direction"] == "reduce" else max(4, int(mebibytes * 1.6))  # as in ResNet-50
            spec = BucketSpec(numel=numel, tensors=tensors, **variant)
            found = tune.measure(spec, seconds)
            ratios = {target: round(ratio, 3) for target, ratio in found.ratios.items()}
            row = {
                "spec": asdict(spec),
                "target": found.target,
                "config": describe(found.config),
                "ratio_vs_torch": ratios,
            }
            measured.append(row)
            print(json.dumps(row), flush=True)
    return measured


if __name__ == "__main__":
    evidence = {
        "kind": "measured",
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__},
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/bucket_sizes.py",
    }
    found = {"evidence": evidence, "rows": rows(seconds=0.7)}
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")
