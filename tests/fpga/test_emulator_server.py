"""Emulated boards behind the unmodified pynq client: what pynq's own classes see, two boards at once, and refusals."""

from __future__ import annotations

import os
import socket
import struct
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

pynq = pytest.importorskip("pynq")
grpc = pytest.importorskip("grpc")

from pynq.pl_server.remote_device import RemoteDevice, RemoteGPIO  # noqa: E402

from accelops.targets.fpga import boards  # noqa: E402
from accelops.targets.fpga.emulator import files, handoff  # noqa: E402
from accelops.targets.fpga.emulator.machine import Machine  # noqa: E402
from accelops.targets.fpga.emulator.server import Server  # noqa: E402
from accelops.targets.fpga.registers import config_hash, kernels, offsets  # noqa: E402

BOARDS = ("pynq-z2", "zcu104", "kv260")
DEADLINE = 30.0


@contextmanager
def connected(name: str, index: int = 0) -> Iterator[tuple[Machine, RemoteDevice]]:
    machine = Machine(boards.board(name))
    server = Server(machine)
    device = RemoteDevice(index, "127.0.0.1", port=server.port)
    pynq.Device.active_device = device
    try:
        yield machine, device
    finally:
        device.client.channel.close()
        server.stop()


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> Iterator[tuple[Machine, RemoteDevice]]:
    with connected(request.param) as both:
        yield both


@pytest.fixture
def small() -> Iterator[tuple[Machine, RemoteDevice]]:
    with connected("pynq-z2") as both:
        yield both


def overlay(device: RemoteDevice, bit: Path) -> pynq.Overlay:
    """As a user of pynq 4.0.0 loads one; Zynq-7000 needs its frequencies filled in. Nothing is kept in pynq's folder."""
    if hasattr(pynq.Clocks, "_real_instance"):
        del pynq.Clocks._real_instance  # it would stay with the first board
    loaded = pynq.Overlay(str(bit), download=False, device=device)
    loaded.parser._from_cache = True
    parameters = loaded.ip_dict[loaded.parser.ps_name]["parameters"]
    for i, clock in loaded.clock_dict.items():
        if clock["enable"] and clock["frequency"] is None:
            clock["frequency"] = float(parameters[f"PCW_ACT_FPGA{i}_PERIPHERAL_FREQMHZ"])
    loaded.download()
    return loaded


def reduced(device: RemoteDevice, loaded: pynq.Overlay, rows: np.ndarray) -> np.ndarray:
    """The sum of fp32 rows, by pynq's buffers and register map."""
    ranks, numel = rows.shape
    lanes = boards.board({"Pynq-Z2": "pynq-z2"}.get(device.name, device.name.lower())).float_lanes
    flats, out, words = (pynq.allocate(n, t, target=device) for n, t in (((ranks, numel), "f4"), ((numel,), "f4"), ((4,), "u4")))  # fmt: skip
    flats[:], out[:], words[:] = rows, -1, (0, numel // lanes, 0, numel)
    for buffer in (flats, words):
        buffer.sync_to_device()
    registers = loaded.reduce.register_map
    pointers = {f"flats{i}": flats for i in range(4)} | {f"out{i}": out for i in range(4)} | {"descriptors": words}
    for name, buffer in pointers.items():
        setattr(registers, f"{name}_1", buffer.device_address & 0xFFFFFFFF)
        setattr(registers, f"{name}_2", buffer.device_address >> 32)
    registers.buckets, registers.ranks = 1, ranks
    loaded.reduce.mmio.write(offsets(kernels()["reduce"])["scale"], struct.pack("<f", 1.0))
    registers.CTRL.AP_START = 1
    deadline = time.monotonic() + DEADLINE
    while not registers.CTRL.AP_IDLE:
        assert time.monotonic() < deadline
    assert (np.asarray(out) == -1).all(), "nothing comes back before it is invalidated"
    out.sync_from_device()
    return np.array(out)


def test_pynq_finds_the_board_loads_an_overlay_and_computes(board: tuple[Machine, RemoteDevice], tmp_path: Path):
    machine, device = board
    assert device.name.lower() == machine.board.name
    assert device.arch == ("armv7l" if machine.board.family == "zynq7000" else "aarch64")
    loaded = overlay(device, handoff.write(machine.board, ("adam", "reduce"), tmp_path))
    assert {"adam", "reduce"} < set(loaded.ip_dict)
    rows = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    assert np.array_equal(reduced(device, loaded, rows), rows[0] + rows[1] + rows[2])
    registers, kernel = loaded.reduce.register_map, kernels()["reduce"]
    assert registers.VERSION[:] == kernel.version
    assert registers.CONFIG_HASH[:] == config_hash(kernel, machine.board)


def test_pynqs_clocks_are_the_boards(board: tuple[Machine, RemoteDevice], tmp_path: Path):
    machine, device = board
    overlay(device, handoff.write(machine.board, ("reduce",), tmp_path))
    assert pynq.Clocks.fclk0_mhz == pytest.approx(machine.board.clock_mhz, rel=1e-4)
    assert pynq.Clocks.cpu_mhz == pytest.approx(650 if device.arch == "armv7l" else 1200, rel=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "closest possible value"
        pynq.Clocks.fclk0_mhz = 50
    assert machine.clocks.pl_mhz == pytest.approx(50, rel=1e-4)
    assert pynq.Clocks.fclk0_mhz == pytest.approx(50, rel=1e-4)


def test_two_boards_of_different_kinds_serve_one_process(tmp_path: Path):
    with ExitStack() as both:
        devices = [both.enter_context(connected(name, i)) for i, name in enumerate(("pynq-z2", "zcu104"))]
        loaded = []
        for machine, device in devices:
            pynq.Device.active_device = device
            loaded.append(overlay(device, handoff.write(machine.board, ("reduce",), tmp_path / machine.board.name)))
        for turn in range(2):
            for i, (_, device) in enumerate(devices):
                rows = np.full((2, 64), 10 * turn + i, np.float32)
                assert (reduced(device, loaded[i], rows) == 2 * (10 * turn + i)).all()


def test_large_buffers_come_and_go_whole(small: tuple[Machine, RemoteDevice]):
    """Above gRPC's 4 MiB, which the client sends in pieces of 2 MiB."""
    _, device = small
    buffer = pynq.allocate((5 << 20) + 3, "u1", target=device)
    buffer[:] = np.random.default_rng(0).integers(0, 256, len(buffer), np.uint8)
    expected = np.array(buffer)
    buffer.sync_to_device()
    buffer[:] = 0
    buffer.sync_from_device()
    assert np.array_equal(np.asarray(buffer), expected)


def test_exhausted_memory_is_an_empty_buffer_id(small: tuple[Machine, RemoteDevice]):
    machine, device = small
    buffer = pynq.allocate(200 << 20, "u1", target=device)
    assert buffer.buffer_id == ""
    buffer.freed = True
    held = pynq.allocate(100 << 20, "u1", target=device)
    assert machine.ddr.held == 100 << 20
    held.freebuffer()
    assert machine.ddr.held == 0


def test_what_the_board_refuses_are_the_clients_errors(small: tuple[Machine, RemoteDevice]):
    _, device = small
    window = pynq.MMIO(0x50000000, 0x1000, device=device)
    with pytest.raises(RuntimeError, match="bus error: nothing answers at 0x50000000; the overlay holds no kernels"):
        window.read(0)
    with pytest.raises(RuntimeError, match="bus error"):
        window.write(4, 1)
    buffer = pynq.allocate(8, "u1", target=device)
    buffer.freebuffer()
    for use in (buffer.flush, buffer.invalidate, lambda: buffer.device_address):
        with pytest.raises(RuntimeError, match="there is no buffer '1': it was freed"):
            use()


def test_a_bitstream_that_was_not_written_for_emulation_is_refused_with_the_remedy(
    small: tuple[Machine, RemoteDevice], tmp_path: Path
):
    machine, device = small
    bit = handoff.write(machine.board, ("reduce",), tmp_path)
    data = bit.read_bytes()
    at = data.index(handoff.MAGIC)
    bit.write_bytes(data[:at] + bytes(len(data) - at))
    with pytest.raises(grpc.RpcError) as refused:
        overlay(device, bit)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "was not written for emulation" in refused.value.details()
    assert device.read_file("/sys/class/fpga_manager/fpga0/state") == b"write error\n"


@pytest.mark.parametrize("way", ["write", "read"])
def test_a_connection_lost_in_a_transfer_is_an_error_of_the_call(small: tuple[Machine, RemoteDevice], way: str):
    _, device = small
    buffer = pynq.allocate(3 << 20, "u1", target=device)
    buffer[:] = 1
    buffer.sync_to_device()
    device.write_file(files.FAULTS, b"drop")
    buffer[:] = 2
    with pytest.raises(grpc.RpcError) as lost:
        buffer.sync_to_device() if way == "write" else buffer.sync_from_device()
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (np.asarray(buffer) == 2).all(), "nothing of a broken transfer is taken"
    buffer.sync_to_device()


def test_pins_are_exported_written_and_read_back(small: tuple[Machine, RemoteDevice]):
    _, device = small
    pin = RemoteGPIO.get_gpio_pin(2, device=device)
    assert pin == 906 + 54 + 2
    out = RemoteGPIO(pin, "out", device)
    out.write(1)
    assert RemoteGPIO(pin, "in", device).read() == 1
    assert out.is_exported()
    out.release()
    assert not out.is_exported()
    assert RemoteGPIO.get_gpio_npins(device=device) == 118


def test_files_of_the_board_are_read_written_and_missed(small: tuple[Machine, RemoteDevice]):
    _, device = small
    device.write_file("/tmp/note", os.urandom(8) * (3 << 17))
    assert len(device.read_file("/tmp/note")) == 3 << 20
    assert not device.exists_file("/tmp/other").exists
    with pytest.raises(grpc.RpcError) as missing:
        device.read_file("/tmp/other")
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_port_is_one_boards_and_this_machines_alone():
    server = Server(Machine(boards.board("pynq-z2")))
    try:
        with pytest.raises(OSError, match=f"127.0.0.1:{server.port} cannot be listened on, another board may be there"):
            Server(Machine(boards.board("pynq-z2")), server.port)
        listening = Path("/proc/net/tcp").read_text() if Path("/proc/net/tcp").exists() else ""
        bound = [
            line.split()[1] for line in listening.splitlines()[1:] if f":{server.port:04X} " in line.split()[1] + " "
        ]
        assert all(address.startswith("0100007F:") for address in bound)
        with socket.create_connection(("127.0.0.1", server.port), timeout=5):
            pass
    finally:
        server.stop()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)
