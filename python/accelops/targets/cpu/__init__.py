"""The CPU: is the native extension there, and what is this machine called in tuned tables."""

from __future__ import annotations

import platform
import re
from functools import cache
from importlib import import_module
from pathlib import Path

try:
    native = import_module("accelops._native")
except ImportError as error:
    native, _missing = None, str(error)


def unavailable() -> str | None:
    if native is None:
        return f"the native extension does not load ({_missing}); install accelops with a C++ compiler at hand: pip install ."
    return None


@cache
def device_name() -> str:
    """Model of the processor and the instruction set in use, e.g. "AMD EPYC 9655 avx512": the name of its tuned table."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return (
        f"{model[1].strip() if model else platform.processor() or platform.machine()} {native.isa() if native else ''}"
    )
