"""How large hls/rtl is, by yosys: the reduction kernel for each board, and arrays of int8 multipliers. *Estimates* of
synthesis, before placement; no clock is claimed.

    python benchmarks/fpga_rtl.py benchmarks/results/fpga_rtl.json
"""

from __future__ import annotations

import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path

from accelops.targets.fpga import boards, synthesis

ARRAYS = (("zynq7000", 16, 16), ("zynquplus", 16, 16))  # family, outputs, inputs


def rows() -> list[dict[str, object]]:
    found = []
    for name in boards.names():
        board = boards.board(name)
        size = synthesis.size("reduce", board.family, name)
        found.append(
            {"module": "reduce", "board": name, "part": board.part, **asdict(size), "available": board.resources}
        )
        print(found[-1], flush=True)
    for family, outputs, inputs in ARRAYS:
        size = synthesis.size("mac_array", family, parameters={"OUTPUTS": outputs, "INPUTS": inputs})
        found.append({"module": "mac_array", "family": family, "multipliers": outputs * inputs, **asdict(size)})
        print(found[-1], flush=True)
    return found


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    result = {
        "evidence": {
            "kind": "yosys synthesis estimate",
            "device": ", ".join(boards.names()),
            "versions": {"yosys": synthesis.version().removeprefix("Yosys ")},
            "date": datetime.date.today().isoformat(),
            "command": f"benchmarks/fpga_rtl.py {arguments[0]}",
        },
        "sources": synthesis.sources(),
        "sizes": rows(),
    }
    Path(arguments[0]).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
