"""C-simulation says what is wrong: no compiler, a source that does not compile, arguments that the kernel does not have."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from accelops.targets import TargetUnavailable
from accelops.targets.fpga import boards
from accelops.targets.fpga.registers import kernels
from accelops.targets.fpga.simulation import compile_kernel

PYNQ_Z2 = boards.board("pynq-z2")


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetUnavailable, match=r"g\+\+, which is not on the PATH: apt install g\+\+"):
        compile_kernel(kernels()["reduce"], PYNQ_Z2, tmp_path)


def test_a_source_that_does_not_compile_is_shown_with_the_compilers_words(tmp_path: Path):
    hls = shutil.copytree(boards.hls_folder(), tmp_path / "hls")
    (hls / "bucket" / "reduce.cpp").write_text("int nonsense() { return missing; }\n")
    with pytest.raises(RuntimeError, match=r"reduce\.cpp:1:.*missing"):
        compile_kernel(kernels()["reduce"], PYNQ_Z2, tmp_path, hls)


def test_arguments_that_are_missing_or_unknown_are_named(simulated):
    with pytest.raises(TypeError, match=r"reduce takes flats0, .*; given rank, identity"):
        simulated("reduce", "pynq-z2").run(rank=2)
