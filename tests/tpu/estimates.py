"""What the compiler estimated for a few small cases: estimates.json, with which test_tpu_compile.py compares.

    python -m tests.tpu.estimates

writes the file anew, for other versions of jax and libtpu, or after a lowering has changed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelops.bench.tpu_aot import NOT_MEASURED, cases
from accelops.bench.tpu_aot.cases import Case
from accelops.bench.tpu_aot.chips import CHIPS
from accelops.bench.tpu_aot.rows import Laboratory, Row, row
from accelops.information import versions
from accelops.kernels.adam.spec import AdamSpec

FILE = Path(__file__).parent / "estimates.json"
PACKAGES = ("jax", "jaxlib", "libtpu")
ADAM = AdamSpec(2**20, device="xla")


def convolution(name: str, weight: str, direction: str = "fprop") -> Case:
    [case] = [c for c in cases.described("conv", f"8,128,28,28:{weight}") if c.spec.direction == direction]
    return replace(case, name=name)


# By name: the case, its Config, and the chips that it is compiled for.
CASES: dict[str, tuple[Case, dict[str, Any], tuple[str, ...]]] = {
    "dense": (convolution("dense", "128,128,3,3"), {"type": "dense.Config", "merge": 1}, tuple(CHIPS)),
    "grouped": (
        convolution("grouped", "128,4,3,3"),
        {"type": "dense.Config", "merge": 32},
        ("v5e", "v5p", "v6e"),
    ),
    "grouped wgrad": (
        convolution("grouped wgrad", "128,4,3,3", "wgrad"),
        {"type": "dense.Config", "merge": 32},
        ("v5e",),
    ),
    "depthwise": (convolution("depthwise", "128,1,3,3"), {"type": "depthwise.Config", "rows": 28}, ("v4", "v5e")),
    "adam": (Case("adam", ADAM), {"type": "xla.Config"}, tuple(CHIPS)),
    "adam in eager mode": (Case("adam", ADAM, baseline={"eager": True}), {"type": "xla.Config"}, ("v5e", "v6e")),
}


def compiled() -> dict[str, Row]:
    """All of CASES, by name and chip."""
    with Laboratory() as laboratory:
        return {
            f"{name} {chip}": row(laboratory, case, CHIPS[chip], config)
            for name, (case, config, chips) in CASES.items()
            for chip in chips
        }


def main() -> None:
    found = compiled()
    content = {
        "note": NOT_MEASURED,
        "versions": versions(*PACKAGES),
        "estimates_us": {
            name: {"ours": row.estimate_us, "source": row.source, "stock": row.stock and row.stock.estimate_us}
            for name, row in found.items()
        },
    }
    FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
