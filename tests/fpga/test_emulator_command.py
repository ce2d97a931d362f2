"""`accelops fpga emulate` as a process: it says where the board is, tells of its launches, and ends when interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from accelops import cli_emulate
from accelops.cli import app
from accelops.targets.fpga import boards
from accelops.targets.fpga.emulator import handoff

from .host import Host

PYNQ_Z2 = boards.board("pynq-z2")


@contextmanager
def emulating(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "accelops", "fpga", "emulate", "--port", "0", *options]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


class Remote:
    """As much of a Machine as Host uses, by pynq's client."""

    def __init__(self, port: int):
        from accelops.targets.fpga.pynq_link import remote

        self.link, self.board = remote("127.0.0.1", port), PYNQ_Z2
        self._memories = {}

    def load(self, bitstream: bytes) -> None:
        self.link.device.write_file("/lib/firmware/test.bin", bitstream)
        self.link.device.write_file("/sys/class/fpga_manager/fpga0/firmware", b"test.bin")

    def allocate(self, nbytes: int) -> int:
        memory = self.link.allocate(nbytes)
        self._memories[memory.address] = memory
        return memory.address

    def write(self, address: int, data: bytes) -> None:
        self._memories[address].array[:] = np.frombuffer(data, np.uint8)

    def flush(self, address: int) -> None:
        self._memories[address].flush()

    def invalidate(self, address: int) -> None:
        self._memories[address].invalidate()

    def read(self, address: int) -> bytes:
        return self._memories[address].array.tobytes()

    def mmio_write(self, address: int, data: bytes) -> None:
        self.link.write(address, data)

    def mmio_read(self, address: int) -> int:
        return self.link.read(address)


def test_the_command_serves_a_board_writes_its_overlays_and_tells_of_launches_in_json(tmp_path: Path):
    pytest.importorskip("pynq")
    with emulating("--board", "pynq-z2", "--json", "--overlays", str(tmp_path)) as process:
        said = json.loads(process.stdout.readline())
        assert said["board"] == "pynq-z2" and said["host"] == "127.0.0.1"
        assert [Path(path).name for path in said["overlays"]] == ["pynq-z2-train.bit", "pynq-z2-reduce.bit", "pynq-z2-infer.bit"]  # fmt: skip
        assert handoff.read(Path(said["overlays"][0]).read_bytes()).kernels.keys() == {"adam", "conv_fp32"}
        host = Host(Remote(said["port"]), tmp_path / "mine")
        arguments = host.reduction(np.ones((3, 64), np.float32))
        host.run("reduce", **arguments)
        assert (host.result(arguments["out0"]) == 3).all()
        host.machine.link.close()
        launch = json.loads(process.stdout.readline())
        assert launch["kernel"] == "reduce" and launch["modelled_cycles"] > 0 and launch["faults"] == []
        process.terminate()
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    "options, says",
    [
        (("--board", "de10-nano"), "is not described in hls/boards; choose one of kv260, pynq-z2"),
        (("--board", "u250"), "board='u250' is driven through XRT"),
        (("--fault", "smoke"), "fault='smoke' is unknown; choose one of hang"),
        (("--kernel-slot", "fpga"), "--kernel-slot='fpga' is unknown; choose one of csim, rtl"),
    ],
)
def test_what_cannot_be_emulated_is_said_before_anything_is_compiled(options: tuple[str, ...], says: str):
    result = CliRunner().invoke(app, ["fpga", "emulate", *options])
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


def test_without_pynq_the_command_says_what_to_install_before_anything_is_compiled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynq.remote.remote_device_pb2", None)
    monkeypatch.setattr(cli_emulate, "compile_all", lambda board, slots: pytest.fail("compiled"))
    result = CliRunner().invoke(app, ["fpga", "emulate", "--port", "0"])
    assert result.exit_code == 2
    assert "pip install 'accelops[fpga]'" in " ".join(result.stderr.split())
