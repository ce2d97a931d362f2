"""Which boards are found and what is said where none can be: no pynq, numpy 2, no board, one that appears later."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

import accelops
from accelops import targets
from accelops.dispatch.explain import explain
from accelops.targets import TargetUnavailable, fpga
from accelops.targets.fpga import boards, discovery
from accelops.targets.fpga.driver import Driver
from accelops.targets.fpga.driver import _open as open_drivers
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.emulator.server import Server
from accelops.targets.fpga.errors import BoardFault, BoardLost

from .in_process import InProcess
from .launching import PYNQ, check_sum, serving

PYNQ_Z2 = boards.board("pynq-z2")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No board of the machine that the tests run on, and nothing known from another test."""
    monkeypatch.delenv(discovery.REMOTE_VARIABLE, raising=False)
    monkeypatch.setattr(discovery, "_known", {})
    discovery._pynq_link.cache_clear()
    yield
    discovery._pynq_link.cache_clear()


@pytest.fixture
def server():
    with serving(Machine(PYNQ_Z2)) as made:
        yield made


def installed(monkeypatch, **versions: str | None) -> None:
    """As if these packages were installed, and no others."""
    monkeypatch.setattr(discovery, "find_spec", lambda name: versions.get(name))
    monkeypatch.setattr(discovery, "version", lambda name: versions[name])


def test_without_pynq(monkeypatch):
    installed(monkeypatch, pynq=None)
    assert fpga.unavailable() == targets.unavailable("fpga")
    assert "pynq is not installed: pip install 'accelops[fpga]'" in fpga.unavailable()
    for use in (fpga.current, fpga.found, lambda: fpga.connect("127.0.0.1")):
        with pytest.raises(TargetUnavailable, match="pynq is not installed"):
            use()
    with pytest.raises(TargetUnavailable, match="pynq is not installed"), accelops.use("fpga"):
        pass


def test_with_numpy_2(monkeypatch):
    installed(monkeypatch, pynq="4.0.0", numpy="2.4.0")
    expected = "pynq 4.0.0 cannot allocate buffers with numpy 2.4.0: pip install 'numpy<2'"
    assert fpga.unavailable() == expected
    with pytest.raises(TargetUnavailable, match=r"numpy 2\.4\.0"):
        fpga.connect("127.0.0.1")


def test_with_a_pynq_that_does_not_load(monkeypatch):
    installed(monkeypatch, pynq="4.0.0", numpy="1.26.4")

    def broken(name: str):
        raise ImportError("libxrt.so.2: cannot open shared object file")

    monkeypatch.setattr(discovery, "import_module", broken)
    assert "pynq does not load (libxrt.so.2" in fpga.unavailable()


def test_a_board_in_use_needs_no_pynq(monkeypatch):
    installed(monkeypatch, pynq=None)
    driver = Driver(InProcess(Machine(PYNQ_Z2)))
    with fpga.on(driver) as mine:
        assert mine is driver is fpga.current()
        assert targets.unavailable("fpga") is None and targets.emulated("fpga")
        driver.close()
        assert "was closed" in targets.unavailable("fpga")
    assert "pynq is not installed" in targets.unavailable("fpga")


def test_kept_selections_name_what_is_missing_now(monkeypatch):
    installed(monkeypatch, pynq=None)
    shapes = {"input": (1, 8, 8, 8), "weight": (8, 8, 3, 3), "direction": "fprop"}

    def reason() -> str:
        return "; ".join(explain("conv", **shapes).selections[0].reasons["fpga"])

    driver = Driver(InProcess(Machine(PYNQ_Z2)))
    assert "pynq is not installed" in reason()
    with fpga.on(driver):
        assert "is emulated here, which has no speed" in reason()
    assert "pynq is not installed" in reason()
    driver.close()


def test_contexts_of_boards_nest():
    inner, outer = (Driver(InProcess(Machine(PYNQ_Z2))) for _ in range(2))
    with fpga.on(outer):
        with fpga.on(inner):
            assert fpga.current() is inner
        assert fpga.current() is outer
    inner.close()
    outer.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.168.2.99", ("192.168.2.99", 7967)),
        (" board.local:7968 ", ("board.local", 7968)),
        ("[fe80::1]:7000", ("[fe80::1]", 7000)),
        ("[fe80::1]", ("[fe80::1]", 7967)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]):
    assert discovery.address(text) == expected


@pytest.mark.parametrize("text", ["board:", ":7967", "board:70000", "board:0", "board:http"])
def test_what_is_no_address(text: str):
    with pytest.raises(ValueError, match="is no address of a board: expected ADDRESS or ADDRESS:PORT"):
        discovery.address(text)


@PYNQ
def test_no_board_names_the_ways_to_one():
    for part in ("no FPGA board is found", "PYNQ_REMOTE_DEVICES", "accelops fpga emulate --board pynq-z2"):
        assert part in fpga.unavailable()
    assert fpga.found() == []
    with pytest.raises(TargetUnavailable, match="this machine is no FPGA board"):
        fpga.here()


@PYNQ
def test_a_variable_that_lists_no_address_is_told(monkeypatch):
    monkeypatch.setenv(discovery.REMOTE_VARIABLE, "127.0.0.1:board")
    assert fpga.unavailable().startswith("PYNQ_REMOTE_DEVICES: '127.0.0.1:board' is no address")


@PYNQ
def test_where_nothing_listens_is_told_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        begun = time.monotonic()
        with pytest.raises(BoardLost, match=r"no board answers.*refused.*PYNQ\.remote's server running"):
            fpga.connect("127.0.0.1", taken.getsockname()[1])
        assert time.monotonic() - begun < 1


@PYNQ
def test_a_server_that_is_no_boards_is_given_up():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        begun = time.monotonic()
        with pytest.raises(BoardLost, match="no board answers"):
            fpga.connect("127.0.0.1", mute.getsockname()[1])
        assert time.monotonic() - begun < 8


@PYNQ
def test_a_board_that_does_not_say_what_it_is_must_be_named(monkeypatch):
    from accelops.targets.fpga.emulator import files

    monkeypatch.setitem(files.NAMES, "pynq-z2", "Ultra96")
    with serving(Machine(PYNQ_Z2)) as nameless:
        with pytest.raises(BoardFault, match=r"'Ultra96', which is none of kv260.*board='pynq-z2'"):
            fpga.connect("127.0.0.1", nameless.port)
        with closing(fpga.connect("127.0.0.1", nameless.port, board="pynq-z2")) as driver:
            check_sum(driver, seed=0)


@PYNQ
def test_boards_that_the_variable_lists_are_found_once(server: Server, monkeypatch):
    monkeypatch.setenv(discovery.REMOTE_VARIABLE, f" 127.0.0.1:{server.port},")
    (driver,) = fpga.found()
    assert fpga.current() is driver and fpga.found() == [driver]
    assert driver.where == f"127.0.0.1:{server.port}" and driver.emulated and targets.emulated("fpga")
    check_sum(driver, seed=1)
    driver.close()


@PYNQ
def test_a_board_that_appears_later_or_goes_is_noticed(monkeypatch):
    """Also by Selections that were made before."""
    monkeypatch.setattr(discovery, "RETRY", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv(discovery.REMOTE_VARIABLE, f"127.0.0.1:{port}")
    shapes = {"input": (1, 8, 8, 8), "weight": (8, 8, 3, 3), "direction": "fprop"}
    assert "no board answers" in targets.unavailable("fpga")
    explain("conv", **shapes)
    with serving(Machine(PYNQ_Z2), port):
        assert targets.unavailable("fpga") is None
        first = fpga.current()
        (selection,) = explain("conv", **shapes).selections
        assert selection.target != "fpga" and "is emulated here" in selection.reasons["fpga"][0]
    with pytest.raises(BoardLost):
        check_sum(first, seed=2)
    assert "no board answers" in targets.unavailable("fpga")
    with serving(Machine(PYNQ_Z2), port):
        second = fpga.current()
        assert second is not first
        assert first not in open_drivers
        check_sum(second, seed=3)
        second.close()


@PYNQ
def test_a_board_that_did_not_answer_is_left_alone_for_a_while(monkeypatch):
    tries = []

    def refuse(host: str, port: int) -> Driver:
        tries.append(port)
        raise BoardLost("nothing there")

    monkeypatch.setattr(discovery, "connect", refuse)
    monkeypatch.setenv(discovery.REMOTE_VARIABLE, "127.0.0.1:1")
    assert fpga.unavailable() == fpga.unavailable() == "no FPGA board answers: nothing there"
    assert tries == [1]


@PYNQ
def test_memory_is_given_back_when_a_client_ends():
    """Which did not call close(): the server keeps what is not freed."""
    machine = Machine(PYNQ_Z2)
    with serving(machine) as server:
        script = (
            "from accelops.targets import fpga\n"
            f"driver = fpga.connect('127.0.0.1', {server.port})\n"
            "kept = driver.allocate(10**6)\n"
            "print(driver.held)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert int(done.stdout) >= 10**6
        assert machine.ddr.held == 0
