"""The command `accelops fpga boards`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from accelops import cli
from accelops.targets.fpga import boards, discovery
from accelops.targets.fpga.emulator.machine import Machine

from .launching import PYNQ, serving


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv(discovery.REMOTE_VARIABLE, raising=False)
    monkeypatch.setattr(discovery, "_known", {})
    discovery._pynq_link.cache_clear()


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, ["fpga", "boards", *arguments])


@PYNQ
def test_boards_are_listed_with_what_they_are_and_those_that_do_not_answer(monkeypatch):
    machine = Machine(boards.board("zcu104"))
    with serving(machine) as server:
        monkeypatch.setenv(discovery.REMOTE_VARIABLE, f"127.0.0.1:{server.port}")
        listed = invoke("--host", "127.0.0.1:1", "--json")
        assert listed.exit_code == 0, listed.output
        said = json.loads(listed.stdout)
        assert [(board["board"], board["emulated"]) for board in said["boards"]] == [("zcu104", True)]
        assert said["boards"][0]["free_bytes"] == machine.ddr.free_bytes // 1024 * 1024
        assert said["boards"][0]["overlays"]["infer"] == ["conv_int8"]
        assert len(said["silent"]) == 1 and "127.0.0.1:1: no board answers" in said["silent"][0]
        shown = invoke()
        assert shown.exit_code == 0 and "zcu104" in shown.stdout and "yes" in shown.stdout
        discovery.current().close()


@PYNQ
def test_without_a_board_it_exits_1_and_names_the_ways_to_one():
    alone = invoke()
    assert alone.exit_code == 1 and "accelops fpga emulate" in alone.output
    asked = invoke("--host", "127.0.0.1:1", "--json")
    assert asked.exit_code == 1 and json.loads(asked.stdout)["boards"] == []


@PYNQ
def test_what_is_no_address_exits_2():
    refused = invoke("--host", "board:http")
    assert refused.exit_code == 2 and "is no address of a board" in refused.output


def test_without_pynq_it_exits_2_and_says_what_to_install(monkeypatch):
    monkeypatch.setattr(discovery, "find_spec", lambda name: None)
    refused = invoke()
    assert refused.exit_code == 2 and "pip install 'accelops[fpga]'" in refused.output.replace("\n", " ")
