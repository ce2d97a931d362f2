"""FPGA boards: what they are (boards.py), the kernels' registers (registers.py), what is generated from both
(generate.py), and how long a kernel takes by arithmetic (model.py).

The kernels in accelops.hls are C-simulated; no board is driven yet, so the target serves nobody.
"""

from __future__ import annotations


def unavailable() -> str | None:
    return (
        "this version of accelops drives no FPGA board; its kernels can be C-simulated: make -C hls csim BOARD=pynq-z2"
    )
