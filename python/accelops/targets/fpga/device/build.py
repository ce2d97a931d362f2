"""device.cpp compiled for the torch that is installed, once, into the user's cache folder.

It uses torch's C++ classes, which change from version to version: nothing that was compiled elsewhere would do. The name of
the library holds a hash of all that it depends on, so that another torch or another accelops gets another one.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from ... import TargetUnavailable

SOURCES = ("device.cpp", "memory.hpp")
# C++20 is what torch's headers ask for since 2.12 and take before. Nothing here is worth optimising: memory sets the pace.
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-shared", "-w")


def library() -> Path:
    """The compiled library. Raises TargetUnavailable without a compiler, RuntimeError with its words where it fails."""
    from filelock import FileLock  # a second process waits for the first to compile

    path = _folder() / f"device-{_digest()}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                _compile(path)
    return path


def _folder() -> Path:
    from platformdirs import user_cache_path

    asked = os.environ.get("ACCELOPS_CACHE")
    return (Path(asked) if asked else user_cache_path("accelops")) / "fpga-device"


def _digest() -> str:
    """Of the sources, torch, the machine and the flags."""
    here = Path(__file__).parent
    parts = [(here / source).read_bytes() for source in SOURCES]
    parts.append(repr((torch.__version__, torch.__file__, platform.machine(), FLAGS, *_abi())).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _abi() -> Iterator[str]:
    yield f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"


def _compile(path: Path) -> None:
    """To a temporary name first, so that no one ever loads half a library."""
    installed = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [_compiler(), *FLAGS, *_abi(), f"-I{installed / 'include'}", str(Path(__file__).parent / SOURCES[0])]
        command += ["-o", str(made), f"-L{installed / 'lib'}", "-ltorch_cpu", "-lc10"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(
                f"the fpga device does not compile for torch {torch.__version__}; it needs a compiler of C++20 (g++ 10 or "
                f"newer), which CXX names: {' '.join(command)}\n{done.stderr}"
            )
        os.replace(made, path)


def _compiler() -> str:
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else ("g++", "c++", "clang++"):
        found = shutil.which(name)
        if found is not None:
            return found
    raise TargetUnavailable(
        f"the fpga device is compiled on first use, for torch {torch.__version__}, and there is no C++ compiler "
        f"({asked or 'g++'} is not on the PATH): apt install g++, or name one by CXX"
    )
