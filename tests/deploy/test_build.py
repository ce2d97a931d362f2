"""`accelops fpga build`: with stand-ins for AMD's tools it calls them as the Makefile says; without them it exports a
project that stands on its own, and says which tool is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from accelops import cli
from accelops.deploy import build
from accelops.targets.fpga import boards
from accelops.targets.fpga.registers import kernels

TOOLS = ("v++", "vitis-run", "vivado")
STAND_IN = Path(__file__).parent / "recorded_tool.sh"


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, ["fpga", "build", *arguments])


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """A PATH with what make needs and none of AMD's tools; the folder to put stand-ins into."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in ("make", "sh", "sed", "find", "basename", "mkdir", "g++", "test", "rm", "as", "ld", "cc1plus"):
        if (found := shutil.which(program)) is not None:
            (folder / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("RECORDED", str(tmp_path / "recorded"))
    monkeypatch.chdir(tmp_path)
    return folder


def stand_ins(folder: Path, *names: str) -> None:
    for name in names:
        shutil.copy(STAND_IN, folder / name)
        (folder / name).chmod(0o755)


def recorded(tmp_path: Path) -> list[tuple[str, str]]:
    """(folder, call) of each tool, in order."""
    return [tuple(line.split("|", 1)) for line in (tmp_path / "recorded").read_text().splitlines()]


def test_each_overlay_of_a_board_is_built_by_the_tools(path, tmp_path, monkeypatch):
    stand_ins(path, *TOOLS)
    monkeypatch.setenv("LEAVER", "vivado")
    monkeypatch.setenv("LEAVES", "overlay.bit overlay.hwh")
    result = invoke("--board", "pynq-z2", "--output", "out", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    overlays = boards.board("pynq-z2").overlays
    expected = [str(tmp_path / "out" / f"pynq-z2-{name}.{end}") for name in overlays for end in ("bit", "hwh")]
    assert told["written"] == expected and not told["missing"] and told["project"] is None
    assert all("stand-in" in Path(file).read_text() for file in expected)
    calls = [call for _, call in recorded(tmp_path)]
    for tops in overlays.values():
        for top in tops:
            work = f"{tmp_path}/out/build/pynq-z2/hls/{top}"
            assert f"v++ -c --mode hls --config hls_config.cfg --work_dir {work}" in calls
            assert f"vitis-run --mode hls --package --config hls_config.cfg --work_dir {work}" in calls
        (vivado,) = [call for call in calls if call.startswith("vivado") and call.endswith(f" {' '.join(tops)}")]
        assert "-mode batch -source" in vivado and "tcl/overlay.tcl" in vivado and "pynq-z2/board.tcl" in vivado
    assert {Path(folder).name for folder, call in recorded(tmp_path) if call.startswith("v++")} == set(kernels())


def test_named_kernels_make_one_bitstream(path, tmp_path, monkeypatch):
    stand_ins(path, *TOOLS)
    monkeypatch.setenv("LEAVER", "vivado")
    monkeypatch.setenv("LEAVES", "overlay.bit overlay.hwh")
    result = invoke("--board", "kv260", "--kernels", "reduce, adam", "--output", "out", "--json")
    assert result.exit_code == 0, result.output
    names = [Path(file).name for file in json.loads(result.stdout)["written"]]
    assert names == ["kv260-adam-reduce.bit", "kv260-adam-reduce.hwh"]
    assert not any("conv" in call for _, call in recorded(tmp_path))


def test_an_alveo_card_is_linked_and_needs_no_vivado(path, tmp_path, monkeypatch):
    stand_ins(path, "v++", "vitis-run")
    monkeypatch.setenv("LEAVER", "v++ -l")
    monkeypatch.setenv("LEAVES", "accelops.xclbin")
    result = invoke("--board", "u250", "--output", "out", "--json")
    assert result.exit_code == 0, result.output
    assert [Path(file).name for file in json.loads(result.stdout)["written"]] == ["u250-all.xclbin"]
    assert recorded(tmp_path)[-1][1].startswith("v++ -l -t hw --config")


def test_a_tool_that_fails_exits_1_and_names_the_log(path, tmp_path, monkeypatch):
    stand_ins(path, *TOOLS)
    monkeypatch.setenv("FAILS", "vitis-run")
    result = invoke("--board", "pynq-z2", "--kernels", "adam", "--output", "out")
    assert result.exit_code == 1 and "see build.log" in " ".join(result.stderr.split())
    assert (tmp_path / "out" / "build.log").stat().st_size and not list((tmp_path / "out").glob("*.bit"))


def test_tools_that_leave_nothing_exit_1(path, tmp_path):
    stand_ins(path, *TOOLS)
    result = invoke("--board", "pynq-z2", "--kernels", "adam", "--output", "out")
    assert result.exit_code == 1 and "left no" in " ".join(result.stderr.split())


def test_a_tool_that_does_not_end_is_ended_with_all_that_it_started(path, tmp_path, monkeypatch):
    for program in ("sleep", "true"):
        (path / program).symlink_to(shutil.which(program, path="/usr/bin:/bin"))
    stand_ins(path, "vitis-run", "vivado")
    (path / "v++").write_text('#!/bin/sh\necho $$ > "$RECORDED"\nexec sleep 600\n')
    (path / "v++").chmod(0o755)
    result = invoke("--board", "pynq-z2", "--kernels", "adam", "--output", "out", "--hours", str(2 / 3600))
    assert result.exit_code == 1 and "did not end in" in " ".join(result.stderr.split())
    pid = int((tmp_path / "recorded").read_text())
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """A killed process that nobody has waited for yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("board", boards.names())
def test_without_the_tools_a_project_is_exported_and_the_missing_ones_are_named(path, tmp_path, board):
    result = invoke("--board", board, "--json")
    assert result.exit_code == 3, result.output
    told = json.loads(result.stdout)
    missing = [tool for tool in TOOLS if tool != "vivado" or boards.board(board).family != "alveo"]
    assert list(told["missing"]) == missing and not told["written"]
    project = Path(told["project"])
    assert project == tmp_path / f"accelops-{board}"
    text = (project / "INSTRUCTIONS.md").read_text()
    for tops in boards.board(board).overlays.values():
        assert f'BOARD={board} KERNELS="{" ".join(tops)}"' in text
    assert boards.board(board).part in text and str(tmp_path) not in text
    assert [p.name for p in (project / "generated").iterdir()] == [board]
    assert [p.name for p in project.parent.iterdir() if p.name.startswith(".")] == []


def test_an_exported_project_stands_on_its_own(path, tmp_path, monkeypatch):
    """Its C-simulation passes, and the commands of its instructions run, nothing of accelops being there."""
    assert invoke("--board", "pynq-z2", "--kernels", "reduce").exit_code == 3
    project = tmp_path / "moved away"
    (tmp_path / "accelops-pynq-z2").rename(project)
    project = project.rename(tmp_path / "moved")
    monkeypatch.setenv("PATH", os.defpath + ":/usr/local/bin")
    command = ["make", f"BUILD={tmp_path}/b", "csim", "BOARD=pynq-z2", "KERNELS=reduce", "CXXFLAGS=-O1"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and ", 0 differ" in done.stdout, done.stderr
    stand_ins(path, *TOOLS)
    monkeypatch.setenv("PATH", f"{path}:{os.defpath}")
    monkeypatch.setenv("LEAVER", "vivado")
    monkeypatch.setenv("LEAVES", "overlay.bit overlay.hwh")
    lines = (project / "INSTRUCTIONS.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith(("make bit", "cp build"))]
    assert len(commands) == 3
    script = " && ".join(commands)
    done = subprocess.run(["sh", "-c", script], cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in project.glob("pynq-z2-reduce.*")} == {"pynq-z2-reduce.bit", "pynq-z2-reduce.hwh"}


def test_messages_say_what_is_missing_and_where_the_project_is(path):
    result = invoke("--board", "pynq-z2", "--output", "project")
    assert result.exit_code == 3
    said = " ".join(result.stderr.split())
    for tool in TOOLS:
        assert f"{tool}, of AMD Vi" in said
    assert "INSTRUCTIONS.md has the commands" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--board", "pynq-z9"], "is not described"),
        (["--board", "pynq-z2", "--kernels", "adam,fft"], "kernels=fft are none of adam"),
        (["--board", "pynq-z2", "--output", "bin"], "exists already"),
    ],
)
def test_unusable_arguments_exit_2(path, arguments, words):
    result = invoke(*arguments)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split())


def test_an_output_that_make_cannot_take_exits_2(path):
    stand_ins(path, *TOOLS)
    result = invoke("--board", "pynq-z2", "--output", "a b")
    assert result.exit_code == 2 and "has a space in it" in " ".join(result.stderr.split())


def test_a_project_is_whole_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "instructions", lambda wanted: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        build.export(build.bitstreams(boards.board("kv260")), tmp_path / "project")
    assert not list(tmp_path.iterdir())
