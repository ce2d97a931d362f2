"""The emulated board's kernels: registers, results and costs of a launch, clocks, and whole boards at the same time."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from accelops.targets.fpga import boards, model
from accelops.targets.fpga.convolution import Geometry, conv_fp32
from accelops.targets.fpga.emulator import files, handoff
from accelops.targets.fpga.emulator.clocks import SLCR
from accelops.targets.fpga.emulator.faults import Faults, Refused, parse
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.registers import config_hash, kernels

from .host import DONE, IDLE, Host

START, READY = 1, 8
BOARDS = ("pynq-z2", "zcu104")
FRESH = 0xFFFFFFFF  # memory that nobody has written


@pytest.fixture(params=BOARDS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return Host(Machine(boards.board(request.param)), tmp_path, ("adam", "reduce", "conv_fp32"))


@pytest.fixture
def small(tmp_path: Path) -> Host:
    return Host(Machine(boards.board("pynq-z2")), tmp_path)


def rows(ranks: int = 3, numel: int = 64) -> np.ndarray:
    return np.random.default_rng(ranks).standard_normal((ranks, numel)).astype(np.float32)


def test_a_launch_runs_from_registers_to_results_and_says_what_it_is_modelled_to_cost(host: Host):
    values = rows()
    arguments = host.reduction(values)
    host.run("reduce", **arguments)
    assert np.array_equal(host.result(arguments["out0"]), values[0] + values[1] + values[2])
    estimate = model.reduce(host.board, [64], 3)
    report = json.loads(host.machine.files.read(files.REPORT))
    assert report == {"kernel": "reduce", "cycles": estimate.cycles, "faults": []}
    (launch,) = json.loads(host.machine.files.read(files.LAUNCHES))
    assert launch["modelled_bytes"] == estimate.bytes
    assert launch["modelled_seconds"] == pytest.approx(estimate.seconds, rel=1e-4)


def test_a_step_of_adam_in_place_writes_exactly_its_beats(host: Host):
    numel = 3 * host.board.float_lanes - 1
    arguments = host.step(numel + 1) | {"numel": numel}
    host.run("adam", **arguments)
    weight = host.result(arguments["weight"])
    assert (weight[:numel] == 0.5).all() and weight[numel] == 0
    assert host.machine.fabric.launches[-1].trips == model.adam(host.board, numel).trips


@pytest.mark.parametrize("bias", [0, 1])
def test_a_convolution_on_some_of_the_channels_writes_its_images_and_nothing_beside(host: Host, bias: int):
    array = host.board.sizes["conv_fp32"]
    block, words = array["outputs"], array["inputs"]
    g = Geometry(2, 4, 5, 1, 1, 3, 3, padding_h=1, padding_w=1, tile_n=1, tile_p=2, tile_q=5, C_total=2, K_total=3)
    x = host.buffer(np.ones((g.N, g.C_total, g.H * g.W * words), np.float32))
    w = host.buffer(np.ones(g.sets * block * words, np.float32))
    y = host.machine.allocate(4 * g.N * g.K_total * g.P * g.Q * block)
    constants = host.buffer(np.full(block, 2.0, np.float32)) if bias else 0
    plane = 4 * g.P * g.Q * block
    host.run("conv_fp32", x=x, w=w, bias=constants, y=y + plane, **g.arguments(), flags=bias)
    images = host.memory(y).reshape(g.N, g.K_total, g.P, g.Q, block)
    assert (images[:, [0, 2]] == FRESH).all()
    assert (images[:, 1].view(np.float32)[:, 1, 1] == 9 * words + 2 * bias).all()
    assert not np.isnan(images[:, 1].view(np.float32)).any()
    assert host.machine.fabric.launches[-1].modelled_cycles == conv_fp32(host.board, g, bool(bias)).cycles


def test_registers_follow_ap_ctrl_hs(small: Host):
    """UG1399: AP_START holds until the kernel is done, AP_DONE and AP_READY are cleared by being read, ISR toggles."""
    small.machine.faults.add(parse("slow=0.3"))
    assert small.read("reduce", "CTRL") == IDLE
    assert (small.read("reduce", "VERSION"), small.read("reduce", "CONFIG_HASH")) == (0, 0)
    for register, value in (("GIER", 1), ("IER", 3)):
        small.write("reduce", register, value)
    small.start("reduce")
    assert small.read("reduce", "CTRL") == START
    assert small.wait("reduce") == IDLE | DONE | READY
    assert small.read("reduce", "CTRL") == IDLE
    assert small.read("reduce", "ISR") == 3
    small.write("reduce", "ISR", 1)
    assert small.read("reduce", "ISR") == 2
    small.write("reduce", "ISR", 1)
    assert small.read("reduce", "ISR") == 3


def test_the_kernel_says_who_it_is_once_it_has_run_and_nobody_else_can(host: Host):
    for top in ("adam", "reduce", "conv_fp32"):
        host.run(top)
        kernel = kernels()[top]
        expected = kernel.version, config_hash(kernel, host.board)
        assert (host.read(top, "VERSION"), host.read(top, "CONFIG_HASH")) == expected
        host.write(top, "VERSION", 99)
        assert host.read(top, "VERSION") == kernel.version


def test_many_registers_are_written_in_one_transfer_and_two_are_read_in_one(small: Host):
    base = small.at("adam", "grad")
    small.machine.mmio_write(base, np.arange(1, 9, dtype=np.uint32).tobytes())
    assert small.machine.mmio_read(base, 8) == 2 << 32 | 1
    assert small.machine.mmio_read(base + 12) == 4
    with pytest.raises(Refused, match="whole words"):
        small.machine.mmio_write(base, b"123")


def test_a_loaded_bitstream_leaves_idle_kernels_and_memory_as_it_was(small: Host):
    kept = small.buffer(np.arange(4, dtype=np.float32))
    small.write("adam", "numel", 5)
    small.machine.load(small.bit.read_bytes())
    assert small.read("adam", "numel") == 0 and small.read("adam", "CTRL") == IDLE
    assert (small.memory(kept).view(np.float32) == [0, 1, 2, 3]).all()


def test_only_the_loaded_kernels_answer_on_the_bus(small: Host, tmp_path: Path):
    elsewhere = handoff.addresses(small.board)["conv_int8"]
    with pytest.raises(Refused, match=rf"bus error: .* {elsewhere:#x}; the overlay holds adam at .*, reduce at"):
        small.machine.mmio_read(elsewhere)
    small.machine.load(handoff.write(small.board, ("conv_int8",), tmp_path / "infer").read_bytes())
    assert small.machine.mmio_read(elsewhere) == IDLE
    with pytest.raises(Refused, match="bus error"):
        small.start("adam")


def test_a_slower_clock_makes_a_launch_take_longer_and_a_faster_one_is_refused(small: Host):
    """FPGA0_CLK_CTRL: 1000 MHz divided by 20, then by 5."""
    fpga0 = SLCR + 0x170
    small.machine.mmio_write(fpga0, (20 << 8 | 1 << 20).to_bytes(4, "little"))
    small.run("reduce", **small.reduction(rows()))
    launch = small.machine.fabric.launches[-1]
    assert launch.modelled_seconds == pytest.approx(launch.modelled_cycles / 50e6)
    small.machine.mmio_write(fpga0, (5 << 8 | 1 << 20).to_bytes(4, "little"))
    with pytest.raises(Refused, match="PL clock 0 is set to 200 MHz, the kernels are built for 100"):
        small.start("reduce")


def test_boards_of_one_process_compute_at_the_same_time_and_count_their_own_trips(tmp_path: Path):
    def work(i: int) -> int:
        host = Host(Machine(boards.board("pynq-z2")), tmp_path / str(i))
        values = rows(2, 65536 * (i + 1))
        for _ in range(4):
            arguments = host.reduction(values)
            host.run("reduce", **arguments)
            assert np.array_equal(host.result(arguments["out0"]), values[0] + values[1])
        return len(host.machine.fabric.launches)

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(work, range(3))) == [4] * 3


def test_a_slow_launch_is_overtaken_by_a_bitstream_and_writes_nothing(small: Host):
    small.machine.faults.add(parse("slow=30"))
    arguments = small.reduction(rows())
    small.start("reduce", **arguments)
    time.sleep(0.05)  # until it waits
    small.machine.load(small.bit.read_bytes())
    assert (small.memory(arguments["out0"]) == FRESH).all()
    assert small.read("reduce", "CTRL") == IDLE and not small.machine.fabric.launches


def test_a_board_that_is_no_zynq_is_not_emulated():
    with pytest.raises(ValueError, match="board='u250' is driven through XRT"):
        Machine(boards.board("u250"), faults=Faults())
