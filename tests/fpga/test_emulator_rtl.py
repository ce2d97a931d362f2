"""The emulated board with Verilated RTL in its slots: the same bits as C++, and cycles that are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accelops.targets.fpga import boards, model
from accelops.targets.fpga.emulator import checks
from accelops.targets.fpga.emulator.csim import CSim, csim
from accelops.targets.fpga.emulator.ddr import Ddr
from accelops.targets.fpga.emulator.faults import Refused
from accelops.targets.fpga.emulator.launches import Reach
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.emulator.rtl import Rtl, rtl
from accelops.targets.fpga.registers import kernels
from accelops.targets.fpga.verilated import verilator

from .host import Host

PYNQ_Z2 = boards.board("pynq-z2")
pytestmark = pytest.mark.skipif(verilator() is None, reason="needs Verilator")


def test_rtl_gives_the_bits_of_the_cpp_and_counts_its_cycles(tmp_path: Path):
    results = []
    for slots in (csim, rtl):
        host = Host(Machine(PYNQ_Z2, slots), tmp_path, ("reduce",))
        arguments = host.reduction(np.random.default_rng(0).standard_normal((3, 2050)).astype(np.float32), scale=0.3)
        host.run("reduce", **arguments)
        results.append(host.result(arguments["out0"], np.uint32))
        launch = host.machine.fabric.launches[-1]
        assert (launch.cycles is None) == (slots is csim)
    assert np.array_equal(*results)
    assert 0.8 * launch.modelled_cycles < launch.cycles < 1.25 * launch.modelled_cycles


def test_rtl_and_cpp_write_the_same_identity(tmp_path: Path):
    identities = set()
    for slots in (csim, rtl):
        host = Host(Machine(PYNQ_Z2, slots), tmp_path, ("reduce",))
        host.run("reduce")
        identities.add((host.read("reduce", "VERSION"), host.read("reduce", "CONFIG_HASH")))
    assert len(identities) == 1


def test_what_has_no_rtl_stays_cpp():
    made = {top: rtl(kernels()[top], PYNQ_Z2, Ddr(PYNQ_Z2)) for top in ("reduce", "adam")}
    assert isinstance(made["reduce"], Rtl) and isinstance(made["adam"], CSim)


def test_rtl_that_leaves_every_buffer_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the checks of launches put out, memory itself answers."""
    meaning = checks.Meaning(Reach({}, {}, {}), model.reduce(PYNQ_Z2, [], 0))
    monkeypatch.setattr(checks, "checked", lambda *launch: meaning)
    host = Host(Machine(PYNQ_Z2, rtl), tmp_path, ("reduce",))
    host.start("reduce", **host.reduction(np.ones((2, 64), np.float32), ranks=40))
    with pytest.raises(Refused, match="reduce: gmem0 AR: outside of memory"):
        host.wait("reduce")
    host.run("reduce")
