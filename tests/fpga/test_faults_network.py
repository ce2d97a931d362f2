"""Connections that break, over gRPC and the real pynq client: a server that is gone, says nothing, sends a part, or was started
again. Every call ends in time, and no partial result is ever read."""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np
import pytest

from accelops.targets.fpga import boards, discovery, model
from accelops.targets.fpga.driver import Driver
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.errors import BoardLost

from .launching import check_sum, driving, nothing, prepared, serving

pytest.importorskip("pynq", reason="needs pynq: nox -s fpga")

from accelops.targets.fpga import pynq_link

PYNQ_Z2 = boards.board("pynq-z2")


@pytest.fixture
def machine() -> Machine:
    return Machine(PYNQ_Z2)


@pytest.fixture
def driver(machine: Machine):
    """With an overlay loaded."""
    with driving(machine, "pynq") as made:
        check_sum(made, seed=7)
        yield made


def test_a_server_that_is_gone_is_noticed_at_once(machine: Machine):
    with serving(machine) as server:
        driver = discovery.connect("127.0.0.1", server.port)
        s, flats, descriptors, out = prepared(driver)
    begun = time.monotonic()
    with pytest.raises(BoardLost, match="connect anew"):
        s.run(flats, descriptors, out)
    assert time.monotonic() - begun < 3
    with pytest.raises(BoardLost):
        s.result(out)
    driver.close()


def test_a_buffer_that_arrives_in_part_is_no_result(driver: Driver, machine: Machine, monkeypatch):
    s, flats, descriptors, out = prepared(driver)
    s.run(flats, descriptors, out)
    whole, before = machine.read, out._memory.array.copy()
    monkeypatch.setattr(machine, "read", lambda *where: whole(*where)[:100])
    with pytest.raises(BoardLost, match="arrived in part"):
        s.result(out)
    assert np.array_equal(out._memory.array, before)


def test_a_server_that_was_started_again_has_forgotten_the_buffers(machine: Machine):
    with serving(machine) as server:
        driver = discovery.connect("127.0.0.1", server.port)
        s, flats, descriptors, out = prepared(driver)
    with serving(machine, server.port):
        with pytest.raises(BoardLost, match="does not know a buffer of this client any more"):
            s.run(flats, descriptors, out)
        with closing(discovery.connect("127.0.0.1", server.port)) as again:
            check_sum(again, seed=8)
    driver.close()


@pytest.mark.parametrize(
    "silent", ["mmio_read", "mmio_write", "write", "flush", "invalidate", "read", "allocate", "files"]
)
def test_every_call_has_a_deadline(driver: Driver, machine: Machine, monkeypatch, silent: str):
    monkeypatch.setattr(pynq_link, "CALL_SECONDS", 0.3)
    s, flats, descriptors, out = prepared(driver)
    if silent in ("invalidate", "read"):
        s.run(flats, descriptors, out)
    owner, name = (machine.files, "read") if silent == "files" else (machine, silent)
    working = getattr(owner, name)
    waiting = time.monotonic() + 2

    def say_nothing(*arguments):
        time.sleep(max(0, waiting - time.monotonic()))
        return working(*arguments)

    monkeypatch.setattr(owner, name, say_nothing)
    begun = time.monotonic()
    with pytest.raises(BoardLost, match="DEADLINE_EXCEEDED"):
        if silent == "allocate":
            driver.allocate(10**6)
        elif silent in ("invalidate", "read"):
            s.result(out)
        else:
            s.run(flats, descriptors, out)
    assert 0.25 < time.monotonic() - begun < 1.5
    with pytest.raises(BoardLost):
        s.result(out)


def test_loading_has_a_deadline(driver: Driver, machine: Machine, monkeypatch):
    monkeypatch.setattr(pynq_link, "LOADING_SECONDS", 0.3)
    monkeypatch.setattr(machine, "load", lambda bitstream: time.sleep(1.5))
    with pytest.raises(BoardLost, match="DEADLINE_EXCEEDED"):
        driver.run("adam", model.adam(PYNQ_Z2, 0), **nothing(PYNQ_Z2))
