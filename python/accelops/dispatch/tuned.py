"""Tuned tables: which target and Config was measured fastest for a Spec, per device name, as JSON.

Two places: shipped in kernels/<op>/tuned/<device>.json, and the user's own, $ACCELOPS_CACHE or the platform's cache folder
(platformdirs) + /tuned/<op>/<device>.json. A table is written to a temporary file and renamed; writers merge under a file
lock, so many processes may tune at once. One that cannot be read is reported once, set aside and rebuilt.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import accelops.kernels
from accelops.kernels.spec import Spec

FORMAT = 1
LOCK_SECONDS = 30


@dataclass(frozen=True)
class Entry:
    """One line of a table: `target` with `config` (see `describe`) ran at `ratio` times torch's speed."""

    target: str
    config: dict[str, Any]
    ratio: float
    torch: str
    date: str


def describe(config: Any) -> dict[str, Any]:
    """A Config as JSON: its fields and where its type stands ("depthwise.Config"), so that a table outlives no Config that
    has changed."""
    kind = type(config)
    return {"type": f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}", **dataclasses.asdict(config)}


def cache_folder() -> Path:
    """Where the user's tables live: $ACCELOPS_CACHE, else the platform's cache folder for accelops."""
    asked = os.environ.get("ACCELOPS_CACHE")
    if asked:
        return Path(asked)
    from platformdirs import user_cache_path  # beside `record`'s filelock the only need of a package on top of torch

    return user_cache_path("accelops")


def device_name(device: str) -> str:
    """The name under which tables for a torch device type are kept."""
    if device == "cpu":
        from accelops.targets.cpu import device_name

        return device_name()
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


def file_name(device_name: str) -> str:
    """Of the table of a device with this name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", device_name).strip("_").lower() + ".json"


def path(op: str, device: str, source: str) -> Path:
    """The file of a table; `source` is "tuned" (the user's) or "shipped"."""
    name = file_name(device_name(device))
    if source == "tuned":
        return cache_folder() / "tuned" / op / name
    return Path(accelops.kernels.__path__[0]) / op / "tuned" / name


def lookup(spec: Spec, source: str) -> Entry | None:
    """What the table knows of `spec`."""
    table = _table(spec.op, spec.device, source)
    return table.get(spec.to_json()) if table else None


@cache
def _table(op: str, device: str, source: str) -> dict[str, Entry]:
    return _read(path(op, device, source))


def reload() -> None:
    """Read the tables from disk again on the next look-up."""
    _table.cache_clear()


def _read(file: Path) -> dict[str, Entry]:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return {}
    except OSError as error:
        warnings.warn(f"accelops: the tuned table {file} cannot be read ({error}); going on without it", stacklevel=2)
        return {}
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        return {key: Entry(**value) for key, value in content["entries"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        aside = _set_aside(file)
        warnings.warn(
            f"accelops: the tuned table {file} is unreadable or outdated ({error}); set aside as {aside}, "
            "run `accelops tune` to measure anew",
            stacklevel=2,
        )
        return {}


def _set_aside(file: Path) -> Path:
    aside = file.with_suffix(".unreadable")
    try:
        os.replace(file, aside)
    except OSError:  # a read-only installation, or another process was faster
        return file
    return aside


def record(op: str, device: str, entries: dict[Spec, Entry]) -> Path:
    """Merge `entries` into the user's table and return its path. Raises filelock.Timeout after LOCK_SECONDS."""
    from filelock import FileLock

    file = path(op, device, "tuned")
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock"), timeout=LOCK_SECONDS):
        merged = _read(file) | {spec.to_json(): entry for spec, entry in entries.items()}
        content = {
            "format": FORMAT,
            "op": op,
            "device": device_name(device),
            "entries": {key: dataclasses.asdict(merged[key]) for key in sorted(merged)},
        }
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".tmp")
        try:
            with os.fdopen(handle, "w") as stream:
                json.dump(content, stream, indent=1)
            os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
    reload()
    return file
