"""Faults on demand, and bitstreams that an emulated board cannot take."""

from __future__ import annotations

import json
import struct
import time
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import numpy as np
import pytest

from accelops.targets.fpga import boards
from accelops.targets.fpga.emulator import files, handoff
from accelops.targets.fpga.emulator.faults import Dropped, Fault, Faults, OutOfMemory, Refused, parse
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.overlay import opened
from accelops.targets.fpga.registers import config_hash, kernels

from .host import IDLE, Host

PYNQ_Z2 = boards.board("pynq-z2")
STATE = "/sys/class/fpga_manager/fpga0/state"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(Machine(PYNQ_Z2), tmp_path)


def ask(host: Host, fault: str) -> None:
    """As a client does, by a file."""
    host.machine.files.write(files.FAULTS, fault.encode())


def test_a_hang_lasts_until_a_bitstream_is_loaded(host: Host):
    ask(host, "hang")
    arguments = host.reduction(np.ones((2, 64), np.float32))
    host.start("reduce", **arguments)
    time.sleep(0.1)
    assert host.read("reduce", "CTRL") == 1
    host.machine.free(arguments["flats0"])
    host.machine.load(host.bit.read_bytes())
    assert host.read("reduce", "CTRL") == IDLE
    host.run("reduce", **host.reduction(np.ones((2, 64), np.float32)))


def test_a_slow_launch_takes_as_long_as_was_asked_and_is_right(host: Host):
    ask(host, "slow=0.4")
    arguments = host.reduction(np.ones((2, 64), np.float32))
    begun = time.monotonic()
    host.run("reduce", **arguments)
    assert 0.4 <= time.monotonic() - begun < 5
    assert (host.result(arguments["out0"]) == 2).all()


def test_a_bitstream_that_arrives_corrupted_is_refused_and_the_fpga_manager_says_so(host: Host):
    assert host.machine.files.read(STATE) == b"operating\n"
    ask(host, "bad-crc")
    with pytest.raises(Refused, match=r"CRC error: the bitstream says 0x.*, its .* bytes give 0x"):
        host.machine.load(host.bit.read_bytes())
    assert host.machine.files.read(STATE) == b"write error\n"
    host.machine.load(host.bit.read_bytes())
    assert host.machine.files.read(STATE) == b"operating\n"


def test_memory_runs_out_when_asked_to(host: Host):
    ask(host, "out-of-memory*2")
    for _ in range(2):
        with pytest.raises(OutOfMemory, match="4096 bytes asked, 0 held by buffers"):
            host.machine.allocate(4096)
    host.machine.allocate(4096)


def test_a_connection_lost_while_writing_leaves_half_of_the_bytes(host: Host):
    at = host.buffer(np.zeros(4, np.float32))
    ask(host, "drop")
    with pytest.raises(Dropped, match="lost while a buffer was written"):
        host.machine.write(at, np.ones(4, np.float32).tobytes())
    host.machine.flush(at)
    assert host.memory(at).view(np.float32).tolist() == [1, 1, 0, 0]


def test_a_connection_lost_while_reading_has_given_half_of_the_bytes(host: Host):
    at = host.buffer(np.arange(4, dtype=np.float32))
    ask(host, "drop")
    with pytest.raises(Dropped, match="lost while a buffer was read") as lost:
        host.machine.read(at)
    assert np.frombuffer(lost.value.before, np.float32).tolist() == [0, 1]


def test_a_wrong_overlay_has_kernels_of_another_configuration(host: Host):
    expected = config_hash(kernels()["reduce"], PYNQ_Z2)
    ask(host, "wrong-overlay")
    host.machine.load(host.bit.read_bytes())
    host.run("reduce")
    assert host.read("reduce", "CONFIG_HASH") != expected
    assert host.read("reduce", "VERSION") == kernels()["reduce"].version
    host.machine.load(host.bit.read_bytes())
    host.run("reduce")
    assert host.read("reduce", "CONFIG_HASH") == expected


def test_faults_are_read_from_text_and_happen_as_often_as_asked():
    assert parse("slow=2.5") == Fault("slow", 1, 2.5)
    faults = Faults(parse("hang*2"), parse("slow=2.5"))
    assert faults.waiting() == ["hang*2", "slow=2.5*1"]
    assert [parse(text) for text in faults.waiting()] == [Fault("hang", 2), Fault("slow", 1, 2.5)]
    assert [bool(faults.take("hang")) for _ in range(3)] == [True, True, False]
    assert faults.take("slow") == Fault("slow", 1, 2.5)
    assert faults.waiting() == []


@pytest.mark.parametrize(
    "text, says",
    [("smoke", "choose one of hang, slow"), ("slow", "only slow takes seconds"), ("hang=1", "only slow takes seconds"), ("hang*0", "at least 1"), ("slow=soon", "expected KIND")],
)  # fmt: skip
def test_a_fault_that_does_not_exist_is_refused(host: Host, text: str, says: str):
    with pytest.raises(ValueError, match=says):
        ask(host, text)


@pytest.mark.parametrize("name", ["pynq-z2", "zcu104", "kv260"])
def test_a_pair_is_what_the_driver_takes_for_an_overlay_of_the_board(name: str, tmp_path: Path):
    board = boards.board(name)
    for of_one in board.overlays.values():
        bit = handoff.write(board, of_one, tmp_path)
        assert set(opened(board, bit).kernels) == set(of_one)
        registers = ET.parse(bit.with_suffix(".hwh")).getroot().iter("REGISTER")
        assert {"CTRL", "VERSION", "CONFIG_HASH"} <= {register.get("NAME") for register in registers}


def test_the_same_pair_is_written_byte_by_byte_and_another_differs(tmp_path: Path):
    first, again = (handoff.write(PYNQ_Z2, ("adam",), tmp_path / name) for name in ("first", "again"))
    other = handoff.write(PYNQ_Z2, ("adam", "reduce"), tmp_path / "other")
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["overlay.bit", "overlay.hwh"]


def test_pairs_of_unknown_kernels_and_of_boards_without_a_bitstream_are_not_written(tmp_path: Path):
    with pytest.raises(ValueError, match=r"kernels=\('fft',\): choose from adam, reduce"):
        handoff.write(PYNQ_Z2, ("fft",), tmp_path)
    with pytest.raises(ValueError, match="board='u250' is driven through XRT"):
        handoff.write(boards.board("u250"), ("adam",), tmp_path)


def edited(bit: Path, **contents: object) -> bytes:
    """The data of a bitstream with some of its JSON replaced, and a CRC that fits."""
    data = bit.read_bytes()
    start = data.index(b'{"board"')
    text = json.loads(data[start : data.rindex(b"}") + 1]) | contents
    text = json.dumps(text).encode()
    body = data[data.index(handoff.MAGIC) : start - 4] + struct.pack(">I", len(text)) + text + bytes(-len(text) % 4)
    return body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    "contents, says",
    [
        ({"board": "zcu104"}, "this bitstream is for zcu104, the board is a pynq-z2"),
        ({"kernels": {"fft": {"base": 0, "version": 1, "config_hash": 0}}}, "the kernel fft, which is none of adam"),
        ({"kernels": {"adam": {"base": 0, "version": 1, "config_hash": 7}}}, "another configuration of adam"),
        ({"kernels": {"adam": {"base": 0, "version": 9, "config_hash": 0}}}, "another configuration of adam"),
    ],
)
def test_a_bitstream_for_something_else_is_refused(host: Host, contents: dict[str, object], says: str):
    host.machine.load(edited(host.bit))
    with pytest.raises(Refused, match=says):
        host.machine.load(edited(host.bit, **contents))
    assert host.read("adam", "CTRL") == IDLE, "the overlay that was there is still loaded"


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, bytes.fromhex("00090ff00ff00ff00ff0000001") + b"e\0\0\0\4abcd"])
def test_a_bitstream_that_was_not_written_for_emulation_is_refused(host: Host, data: bytes):
    with pytest.raises(Refused, match="was not written for emulation"):
        host.machine.load(data)


def test_the_fpga_manager_loads_a_file_of_the_firmware_folder_with_its_words_reversed(host: Host):
    bit = host.bit.read_bytes()
    words = np.frombuffer(bit[bit.index(handoff.MAGIC) :], ">u4").astype("<u4").tobytes()
    host.machine.files.write("/lib/firmware/some.bin", words)
    host.write("adam", "numel", 3)
    host.machine.files.write("/sys/class/fpga_manager/fpga0/firmware", b"some.bin")
    assert host.read("adam", "numel") == 0
    with pytest.raises(Refused, match=r"there is no /lib/firmware/other\.bin"):
        host.machine.files.write("/sys/class/fpga_manager/fpga0/firmware", b"other.bin")


def test_without_a_compiler_loading_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ACCELOPS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(Refused, match=r"g\+\+, which is not on the PATH: apt install g\+\+"):
        Host(Machine(PYNQ_Z2), tmp_path)
