"""A child in the place of accelops.bench.tpu_aot.child, that behaves as the builder of each request is named."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"
EXECUTABLE = {
    "program": "0",
    "compile_s": 0.5,
    "instructions": [{"name": "fusion", "opcode": "fusion", "cycles": 1500, "kernel": False}],
    "bytes": 8,
    "aliased": [0],
    "donated": 1,
    "aliased_bytes": 4,
    "temporary_bytes": 0,
    "profile": {"fusion": {"cycles": 700, "count": 1}},
}


def main() -> None:
    for line in sys.stdin:
        what = json.loads(line)["builder"]
        if what == "hang":
            time.sleep(600)
        if what == "abort":
            sys.stderr.write((SAMPLES / "abortion.log").read_text())
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGABRT)
        if what == "exit":
            sys.exit("no room left")
        error = {"error": what.removeprefix("error: ")} if what.startswith("error: ") else None
        print(json.dumps(error or {"launches": [EXECUTABLE | {"program": str(os.getpid())}]}), flush=True)


if __name__ == "__main__":
    main()
