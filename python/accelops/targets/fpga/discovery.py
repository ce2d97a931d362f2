"""Which boards there are, and which one is in use.

On a board's own Linux it is found by its FPGA manager; boards on the network are those that PYNQ_REMOTE_DEVICES lists, as
ADDRESS or ADDRESS:PORT with commas between (PYNQ.remote's servers). A board is connected to once and kept; one that is
lost is looked for again, and one that does not answer at most every RETRY seconds, so that asking stays cheap.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from .. import TargetUnavailable
from .driver import Driver
from .errors import BoardError

REMOTE_VARIABLE = "PYNQ_REMOTE_DEVICES"
PORT = 7967  # of PYNQ.remote's server
MANAGER = Path("/sys/class/fpga_manager/fpga0/firmware")  # on a board's own Linux
RETRY = 5.0  # seconds

_in_use: ContextVar[Driver | None] = ContextVar("accelops board in use", default=None)


def connect(host: str, port: int = PORT, board: str | None = None, overlays: Path | None = None) -> Driver:
    """The board at `host`:`port`, which runs PYNQ.remote's server. `board` names it where its Linux does not say what it is;
    `overlays` is a .bit or a folder of them to look at first. Raises TargetUnavailable without a usable pynq, BoardLost
    where nothing answers."""
    return Driver(_pynq_link().remote(host, port, board), overlays)


def here(board: str | None = None, overlays: Path | None = None) -> Driver:
    """The board that this process runs on. Raises TargetUnavailable where that is none, or without a usable pynq."""
    if not MANAGER.exists():
        raise TargetUnavailable(f"this machine is no FPGA board: there is no {MANAGER}")
    return Driver(_pynq_link().local(board), overlays)


def found() -> list[Driver]:
    """Every board that answers, the local one first. Raises TargetUnavailable without a usable pynq, or where
    PYNQ_REMOTE_DEVICES lists what is no address."""
    return asked()[0]


def asked(hosts: Sequence[str] = ()) -> tuple[list[Driver], list[str]]:
    """The boards that answer, also at `hosts` (ADDRESS or ADDRESS:PORT), and why each of the others does not. Raises
    TargetUnavailable as `found` does, ValueError for what is no address."""
    _pynq_link()
    with _lock:
        places = dict(_places(hosts))
        for where, open_board in places.items():
            known = _known.get(where)
            if known is None or known.stale():
                if known is not None and known.driver is not None:
                    known.driver.close()
                _known[where] = _Place.tried(open_board)
        answers = [_known[where] for where in places]
    drivers = [place.driver for place in answers if place.driver is not None]
    return drivers, [place.failure for place in answers if place.driver is None]


def current() -> Driver:
    """The board in use: that of `on`, else the first found. Raises TargetUnavailable with the remedy where there is none."""
    driver = _in_use.get()
    if driver is not None:
        return driver
    drivers, silent = asked()
    if not drivers:
        raise TargetUnavailable(f"no FPGA board answers: {'; '.join(silent)}" if silent else none_found())
    return drivers[0]


@contextmanager
def on(driver: Driver) -> Iterator[Driver]:
    """Within this context `driver` is the board in use."""
    token = _in_use.set(driver)
    try:
        yield driver
    finally:
        _in_use.reset(token)


def unavailable() -> str | None:
    """None where a board is in use or found, else why not. Asked anew each time: boards come and go."""
    try:
        lost = current().lost
    except TargetUnavailable as missing:
        return str(missing)
    return None if lost is None else str(lost)


def emulated() -> bool:
    """Whether the board in use is emulated: right results, and no speed to choose it for."""
    return current().emulated


@dataclass(frozen=True)
class _Place:
    """Where a board should be: its driver, or how trying it failed, and when."""

    driver: Driver | None
    failure: str
    tried_at: float

    @classmethod
    def tried(cls, open_board: Callable[[], Driver]) -> _Place:
        try:
            return cls(open_board(), "", time.monotonic())
        except BoardError as error:
            return cls(None, str(error), time.monotonic())

    def stale(self) -> bool:
        if self.driver is None:
            return time.monotonic() - self.tried_at > RETRY
        return self.driver.lost is not None


_lock = threading.RLock()
_known: dict[str, _Place] = {}


def _places(hosts: Sequence[str]) -> Iterator[tuple[str, Callable[[], Driver]]]:
    if MANAGER.exists():
        yield "here", here
    for host, port in (*_listed(), *map(address, hosts)):
        yield f"{host}:{port}", partial(connect, host, port)


def _listed() -> list[tuple[str, int]]:
    try:
        return [address(entry) for entry in os.environ.get(REMOTE_VARIABLE, "").split(",") if entry.strip()]
    except ValueError as error:
        raise TargetUnavailable(f"{REMOTE_VARIABLE}: {error}") from None


def address(text: str) -> tuple[str, int]:
    """Of ADDRESS, ADDRESS:PORT or [IPv6]:PORT. Raises ValueError."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or port.endswith("]") or (":" in host and not host.endswith("]")):
        return text.strip(), PORT
    if not port.isdecimal() or not 0 < int(port) < 65536 or not host:
        raise ValueError(
            f"{text.strip()!r} is no address of a board: expected ADDRESS or ADDRESS:PORT, such as 192.168.2.99"
        )
    return host, int(port)


@cache
def _pynq_link() -> ModuleType:
    """What needs pynq. Raises TargetUnavailable, each time, where that is not of use."""
    if find_spec("pynq") is None:
        raise TargetUnavailable(
            "pynq is not installed: pip install 'accelops[fpga]', in an environment of its own, for pynq needs numpy<2"
        )
    if version("numpy").split(".")[0] != "1":
        raise TargetUnavailable(
            f"pynq {version('pynq')} cannot allocate buffers with numpy {version('numpy')}: pip install 'numpy<2'"
        )
    try:
        return import_module(f"{__package__}.pynq_link")
    except ImportError as error:
        raise TargetUnavailable(
            f"pynq does not load ({error}): pip install --force-reinstall 'accelops[fpga]'"
        ) from error


def none_found() -> str:
    return (
        f"no FPGA board is found: this machine is none, and {REMOTE_VARIABLE} lists none. Set it to the address of a board "
        f"that runs PYNQ.remote's server, or emulate one (accelops fpga emulate --board pynq-z2) and set it to 127.0.0.1"
    )
