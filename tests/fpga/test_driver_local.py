"""The driver on a board's own Linux, as far as it can be tried without one: pynq's client with a stand-in for its
EmbeddedDevice, which reaches an emulated board by memory-mapped registers and XRT's buffers instead of gRPC."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from accelops.targets import fpga
from accelops.targets.fpga import boards, discovery, driver, link, model
from accelops.targets.fpga.emulator import files as files_of
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.errors import BoardFault, BoardMemoryExhausted

from .launching import check_sum, nothing

pynq = pytest.importorskip("pynq", reason="needs pynq: nox -s fpga")

from pynq._3rdparty import tinynumpy  # noqa: E402
from pynq.pl_server import remote_device  # noqa: E402

PYNQ_Z2 = boards.board("pynq-z2")


class StandIn(pynq.Device):
    """What EmbeddedDevice does by /dev/mem, the FPGA manager and XRT."""

    machine: Machine
    name = "Pynq-Z2"
    arch = "armv7l"

    def __init__(self) -> None:
        super().__init__("stand-in")
        self.capabilities = {"MEMORY_MAPPED": True}
        self.preloaded: list[str] = []

    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False):
        return remote_device._get_bitstream_handler(bitfile_name).get_parser()

    def mmap(self, address: int, length: int):
        buffer = tinynumpy._FakeBuffer(
            length // 4, tinynumpy._convert_dtype("u4", to="array"), Bus(self.machine, address)
        )
        return tinynumpy.ndarray(shape=(length // 4,), dtype="u4", buffer=buffer)

    def allocate(self, shape: tuple[int], dtype: type, **kwargs):
        if not hasattr(self, "mem_dict"):
            raise RuntimeError("Overlay is not downloaded")
        try:
            return XrtBuffer(shape, dtype).of(self.machine)
        except RuntimeError as refused:
            raise RuntimeError(f"BO allocation failed: {refused}") from None

    def download(self, bitstream: pynq.Bitstream, parser=None) -> None:
        self.preloaded.append(bitstream.binfile_name)
        self.machine.load(parser.bin_data)
        self.post_download(bitstream, parser, self.name)


class Bus:
    def __init__(self, machine: Machine, base: int):
        self.machine, self.base = machine, base

    def read(self, offset: int, length: int) -> bytes:
        return self.machine.mmio_read(self.base + offset, length).to_bytes(length, "little")

    def write(self, offset: int, data: bytes) -> None:
        self.machine.mmio_write(self.base + offset, bytes(data))


class XrtBuffer(np.ndarray):
    def of(self, machine: Machine) -> XrtBuffer:
        self.machine, self.device_address = machine, machine.allocate(self.nbytes)
        return self

    def flush(self) -> None:
        self.machine.write(self.device_address, self.tobytes())
        self.machine.flush(self.device_address)

    def invalidate(self) -> None:
        self.machine.invalidate(self.device_address)
        self[:] = np.frombuffer(self.machine.read(self.device_address), np.uint8)

    def freebuffer(self) -> None:
        self.machine.free(self.device_address)


@pytest.fixture
def machine(monkeypatch, tmp_path: Path) -> Machine:
    """The board that this process seems to run on."""
    from accelops.targets.fpga import pynq_link

    files = {name: tmp_path / name for name in ("BOARD_NAME", "EMULATION", "MEMORY")}
    for name, path in files.items():
        monkeypatch.setattr(link, name, str(path))
    monkeypatch.setattr(pynq_link, "BOARD_NAME", str(files["BOARD_NAME"]))

    made = Machine(PYNQ_Z2, cma_bytes=1 << 20)
    monkeypatch.setattr(driver, "report", lambda wire: link.Report(**json.loads(made.files.read(files_of.REPORT))))
    files["BOARD_NAME"].write_bytes(b"Pynq-Z2\0")
    files["EMULATION"].write_text(json.dumps({"board": "pynq-z2", "seconds_per_cycle": 1e-4}))
    files["MEMORY"].write_text("MemTotal: 500000 kB\nCmaFree: 77 kB\n")
    monkeypatch.setattr(StandIn, "machine", made, raising=False)
    monkeypatch.setattr(pynq_link, "EmbeddedDevice", StandIn)
    monkeypatch.setattr(discovery, "MANAGER", files["EMULATION"])
    monkeypatch.setattr(discovery, "_known", {})
    monkeypatch.delenv(discovery.REMOTE_VARIABLE, raising=False)
    return made


def test_the_board_is_found_and_used_without_a_network(machine: Machine):
    board = fpga.current()
    assert (board.where, board.board, board.link.loads_first) == ("this board", PYNQ_Z2, True)
    check_sum(board, seed=0)
    board.run("adam", model.adam(PYNQ_Z2, 0), **nothing(PYNQ_Z2))
    assert board.counts.loads == 3, "the first overlay was loaded for its memory"
    board.close()
    assert machine.ddr.held == 0


def test_pynq_writes_the_bitstream_to_the_firmware_folder_itself(machine: Machine):
    """It does so only where no name is given."""
    board = fpga.here()
    check_sum(board, seed=1)
    assert set(board.link.device.preloaded) == {""}
    board.close()


def test_exhausted_memory_is_told_in_the_same_words(machine: Machine):
    board = fpga.here()
    with pytest.raises(BoardMemoryExhausted) as exhausted:
        board.allocate(2 << 20)
    assert (exhausted.value.held, exhausted.value.free) == (0, 77 * 1024)
    board.close()


def test_a_board_that_does_not_say_what_it_is_must_be_named(machine: Machine):
    Path(link.BOARD_NAME).unlink()
    with pytest.raises(BoardFault, match=r"this board says .*which is none of"):
        fpga.here()
    board = fpga.here(board="pynq-z2")
    check_sum(board, seed=2)
    board.close()
