"""The kernels with AMD's own ap_types (Apache-2.0, from the wheel of hls4ml) in place of hls/sim: the same results.

`nox -s fpga` brings that wheel; without it these tests are skipped."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from accelops.targets.fpga import boards
from accelops.targets.fpga.registers import Kernel, kernels


@pytest.fixture(scope="module")
def ap_types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's headers, but for its hls_stream.h, which is ours."""
    found = find_spec("hls4ml")
    if found is None:
        pytest.skip("needs the headers in the wheel of hls4ml: pip install --no-deps hls4ml")
    folder = tmp_path_factory.mktemp("ap_types")
    for path in (Path(found.origin).parent / "templates" / "vivado" / "ap_types").iterdir():
        if path.name != "hls_stream.h":
            (folder / path.name).symlink_to(path)
    (folder / "hls_stream.h").symlink_to(boards.hls_folder() / "sim" / "hls_stream.h")
    return folder


@pytest.mark.parametrize("board", ["pynq-z2", "zcu104"])
@pytest.mark.parametrize("kernel", kernels().values(), ids=lambda kernel: kernel.top)
def test_the_testbench_passes(kernel: Kernel, board: str, ap_types: Path, tmp_path: Path):
    hls, program = boards.hls_folder(), tmp_path / kernel.top
    sources = [str(hls / source) for source in (*kernel.sources, kernel.testbench)]
    includes = [f"-I{ap_types}", f"-I{hls / 'include'}", f"-I{hls / 'generated' / board}"]
    subprocess.run(
        ["g++", "-std=c++14", "-ffp-contract=off", "-w", *includes, *sources, "-o", str(program)], check=True
    )
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
