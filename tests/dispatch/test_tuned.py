"""Tuned tables: written whole, merged by many processes, and never in the way when they are broken."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from accelops.dispatch import tuned
from accelops.dispatch.select import forget
from accelops.kernels.conv.spec import ConvSpec

ENTRY = tuned.Entry("reference", {"type": "reference.Config"}, 2.0, "2.13.0", "2026-01-01")


def spec(channels: int) -> ConvSpec:
    return ConvSpec("fprop", (1, channels, 8, 8), (4, channels, 3, 3), (1, 1), (0, 0), (1, 1))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELOPS_CACHE", str(tmp_path))
    yield
    tuned.reload()
    forget()


def test_a_recorded_entry_is_found_again():
    file = tuned.record("conv", "cpu", {spec(3): ENTRY})
    assert tuned.lookup(spec(3), "tuned") == ENTRY
    assert tuned.lookup(spec(4), "tuned") is None
    assert json.loads(file.read_text())["device"] == tuned.device_name("cpu")


def test_recording_merges_with_what_is_there():
    tuned.record("conv", "cpu", {spec(3): ENTRY})
    tuned.record("conv", "cpu", {spec(4): ENTRY})
    assert tuned.lookup(spec(3), "tuned") == tuned.lookup(spec(4), "tuned") == ENTRY


@pytest.mark.parametrize(
    "content", ["", "not json", "[]", '{"format": 0, "entries": {}}', '{"format": 1, "entries": {"k": {}}}']
)
def test_an_unreadable_table_is_reported_once_set_aside_and_rebuilt(content):
    file = tuned.path("conv", "cpu", "tuned")
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.warns(UserWarning, match="set aside") as warnings:
        assert tuned.lookup(spec(3), "tuned") is None
        assert tuned.lookup(spec(3), "tuned") is None
    assert len(warnings) == 1
    assert file.with_suffix(".unreadable").read_text() == content
    tuned.record("conv", "cpu", {spec(3): ENTRY})
    assert tuned.lookup(spec(3), "tuned") == ENTRY


def test_a_failed_write_leaves_the_old_table_and_no_litter(monkeypatch):
    file = tuned.record("conv", "cpu", {spec(3): ENTRY})
    before = file.read_text()
    monkeypatch.setattr(tuned.json, "dump", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        tuned.record("conv", "cpu", {spec(4): ENTRY})
    assert file.read_text() == before
    assert not list(file.parent.glob("*.tmp"))


WRITER = """
import sys
from accelops.dispatch import tuned
from accelops.kernels.conv.spec import ConvSpec
for i in range(5):
    channels = 10 * int(sys.argv[1]) + i + 1
    spec = ConvSpec("fprop", (1, channels, 8, 8), (4, channels, 3, 3), (1, 1), (0, 0), (1, 1))
    tuned.record("conv", "cpu", {spec: tuned.Entry("reference", {"type": "reference.Config"}, 2.0, "2.13.0", "2026-01-01")})
"""


def test_many_processes_lose_no_entry():
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(i)]) for i in range(4)]
    assert [w.wait(timeout=120) for w in writers] == [0] * 4
    assert all(tuned.lookup(spec(10 * w + i + 1), "tuned") == ENTRY for w in range(4) for i in range(5))
