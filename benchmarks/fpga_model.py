"""Every convolution of ResNet-50 and MobileNetV3 on every FPGA board, by the cycle model: *modelled*, nothing ran on a board.

python benchmarks/fpga_model.py                                       prints the table
python benchmarks/fpga_model.py benchmarks/results/fpga_model.json    and writes it
"""

from __future__ import annotations

import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path

from accelops.bench import fpga_model
from accelops.targets.fpga import boards
from accelops.targets.fpga.registers import kernels

NETWORKS, BATCH = ("resnet50", "mobilenet_v3"), 8


def main(arguments: list[str]) -> None:
    rows = [row for network in NETWORKS for row in fpga_model.rows(network, BATCH)]
    print(fpga_model.table(rows))
    if not arguments:
        return
    result = {
        "evidence": {
            "kind": "modelled",
            "device": ", ".join(boards.names()),
            "versions": {kernel.top: kernel.version for kernel in kernels().values()},
            "date": datetime.date.today().isoformat(),
            "command": " ".join(["benchmarks/fpga_model.py", *arguments]),
        },
        "batch": BATCH,
        "modelled": [asdict(row) for row in rows],
    }
    Path(arguments[0]).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
