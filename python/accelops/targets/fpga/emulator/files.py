"""The files of the board's Linux that a client reads and writes: what the board is, the FPGA manager, and reports.

Only an emulated board has EMULATION, REPORT, LAUNCHES, WARNINGS and FAULTS; writing "hang" or "slow=2" to the last asks for a fault.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..boards import Board

VERSION = "/proc/version"
BOARD_NAME = "/proc/device-tree/chosen/pynq_board"
MEMORY = "/proc/meminfo"
FIRMWARE = "/lib/firmware/"
MANAGER = "/sys/class/fpga_manager/fpga0/"
EMULATION = "/etc/accelops/emulation.json"
REPORT = "/run/accelops/report.json"
LAUNCHES = "/run/accelops/launches.json"
WARNINGS = "/run/accelops/warnings.json"
FAULTS = "/run/accelops/faults"

NAMES = {"pynq-z2": "Pynq-Z2", "zcu104": "ZCU104", "kv260": "KV260"}  # as PYNQ's images say it
ARCHITECTURES = {"zynq7000": "armv7l", "zynquplus": "aarch64"}


class Files:
    """What is written is kept, beside what `readers` compute when read; `writers` act when their file is written."""

    def __init__(self, board: Board):
        version = f"Linux version 6.6.10-xilinx ({ARCHITECTURES[board.family]}) emulated\n"
        self._kept = {
            VERSION: version.encode(),
            BOARD_NAME: NAMES.get(board.name, board.name).encode() + b"\0",
            MANAGER + "state": b"unknown\n",
            MANAGER + "flags": b"0\n",
        }
        self.readers: dict[str, Callable[[], bytes]] = {}
        self.writers: dict[str, Callable[[bytes], None]] = {}
        self._lock = threading.Lock()

    def exists(self, path: str) -> bool:
        return path in self._kept or path in self.readers or path in self.writers

    def read(self, path: str) -> bytes | None:
        """None where there is no such file."""
        return self.readers[path]() if path in self.readers else self._kept.get(path)

    def write(self, path: str, data: bytes) -> None:
        if path in self.writers:
            self.writers[path](data)
        else:
            with self._lock:
                self._kept[path] = data
