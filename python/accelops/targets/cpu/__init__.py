"""The CPU: is the native extension there, and what is this machine called in tuned tables."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path


def unavailable() -> str | None:
    try:
        from accelops import _native  # noqa: F401
    except ImportError as error:
        return f"the native extension does not load ({error}); install accelops with a C++ compiler at hand: pip install ."
    return None


@cache
def device_name() -> str:
    """Model of the processor and the instruction set in use, e.g. "AMD EPYC 9655 avx512": the name of its tuned table."""
    from accelops import _native

    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return f"{model[1].strip() if model else platform.processor() or platform.machine()} {_native.isa()}"
