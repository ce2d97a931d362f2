"""`make -C hls` by its users' hands: C-simulation passes with g++ alone, sees a broken kernel, and other targets name the
tool that is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from accelops.targets.fpga import boards

BREAKS = [
    ("adam", "adam/adam.cpp", "f.beta1_rest * (g - s.m)", "f.beta1_rest * (g + s.m)"),
    ("adam", "adam/adam.cpp", "if (!f.amsgrad || !keep)", "if (!f.amsgrad)"),
    ("adam", "adam/adam.cpp", "in ? s.v : 0", "s.v"),
    ("adam", "adam/adam.cpp", "half == 1 || i + 1 == beats", "half == 1"),
    ("reduce", "bucket/reduce.cpp", "rank == 0 ? x : partial[i][lane] + x", "rank == 0 ? x : x + x"),
    ("reduce", "bucket/reduce.cpp", "tile.out += tile_out", "tile.out += 0"),
    ("reduce", "bucket/reduce.cpp", "rank * tile.rank_stride", "rank * row"),
    ("conv_int8", "conv/int8.cpp", "(low < 0 ? 1 : 0)", "0"),
    ("conv_int8", "conv/array.hpp", "weights[(set + 1) & 1]", "weights[set & 1]"),
    ("conv_int8", "conv/int8.cpp", "(30 + shift)", "(29 + shift)"),
    ("conv_int8", "conv/memory.hpp", "h >= int32_t(g.H)", "h > int32_t(g.H)"),
    ("conv_int8", "conv/memory.hpp", "+ tile.q) * beats", "+ 0) * beats"),
    ("conv_int8", "conv/memory.hpp", "r * g.skip_h()", "r"),
    ("conv_int8", "conv/memory.hpp", "part == 0 && columns.kept()", "part == 0"),
    ("conv_fp32", "conv/fp32.cpp", "product[c] += product[c + half]", "product[c] += product[half]"),
    ("conv_fp32", "conv/fp32.cpp", "relu && shifted < 0", "shifted < 0"),
    ("conv_fp32", "conv/array.hpp", "if (!tap.first())", "if (tap.s)"),
    ("reduce", "include/beat.hpp", "0x7fffu + (bits >> 16 & 1u)", "0x8000u"),
]


def make(hls: Path, build: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    missing = [program for program in ("make", "g++") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")
    command = ["make", "-C", str(hls), f"BUILD={build}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("board", boards.names())
def test_csim_passes(board: str, tmp_path: Path):
    done = make(boards.hls_folder(), tmp_path, "csim", f"BOARD={board}", "CXXFLAGS=-O1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", 0 differ") == 4


@pytest.mark.parametrize("kernel, file, right, wrong", BREAKS, ids=[wrong for *_, wrong in BREAKS])
def test_the_testbench_sees_a_broken_kernel(kernel: str, file: str, right: str, wrong: str, tmp_path: Path):
    hls = shutil.copytree(boards.hls_folder(), tmp_path / "hls")
    text = (hls / file).read_text()
    assert text.count(right) == 1
    (hls / file).write_text(text.replace(right, wrong))
    done = make(hls, tmp_path, "csim", f"KERNELS={kernel}", "CXXFLAGS=-O0", "SEED=1")
    assert done.returncode != 0
    assert "differ" in done.stdout or "never read" in done.stderr or "read when empty" in done.stderr


def test_a_seed_repeats_a_run(tmp_path: Path):
    said = [make(boards.hls_folder(), tmp_path, "csim", "KERNELS=reduce", "SEED=7").stdout for _ in range(2)]
    assert "seed 7" in said[0]
    assert said[0].splitlines()[-2] == said[1].splitlines()[-2]


@pytest.mark.parametrize(
    "target, board",
    [("csynth", "pynq-z2"), ("cosim", "zcu104"), ("package", "kv260"), ("bit", "pynq-z2"), ("xclbin", "u250")],
)
def test_a_target_without_its_tool_names_it(target: str, board: str, tmp_path: Path):
    if shutil.which("v++"):
        pytest.skip("Vitis is here")
    done = make(boards.hls_folder(), tmp_path, target, f"BOARD={board}")
    assert done.returncode != 0
    assert "needs v++, of AMD Vitis" in done.stderr


@pytest.mark.parametrize(
    "target, board, instead",
    [("bit", "u250", "make xclbin"), ("xclbin", "kv260", "make bit"), ("report", "kv260", "make csynth")],
)
def test_a_target_that_makes_no_sense_yet_says_what_does(target: str, board: str, instead: str, tmp_path: Path):
    done = make(boards.hls_folder(), tmp_path, target, f"BOARD={board}")
    assert done.returncode != 0
    assert f"{instead} BOARD={board}" in done.stderr


def test_an_unknown_board_names_the_known_ones(tmp_path: Path):
    done = make(boards.hls_folder(), tmp_path, "csim", "BOARD=de10-nano")
    assert done.returncode != 0
    assert "kv260 pynq-z2 u250 zcu104" in done.stderr
