"""Boards are described once: what is generated is current, and the kernels' sources say what their descriptions say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from accelops.targets.fpga import boards, generate, registers

KERNELS = tuple(registers.kernels().values())


def by_top(kernel: registers.Kernel) -> str:
    return kernel.top


def source(kernel: registers.Kernel) -> str:
    return (boards.hls_folder() / kernel.sources[0]).read_text()


def test_generated_files_are_current():
    assert not generate.stale(), "python -m accelops.targets.fpga.generate"


def test_every_generated_file_says_that_it_is_never_edited():
    assert all("never edit it" in text for text in generate.generated().values())


def test_a_change_of_a_board_makes_its_generated_files_stale(monkeypatch, tmp_path):
    copy = shutil.copytree(boards.hls_folder(), tmp_path / "hls")
    described = copy / "boards" / "pynq-z2.json"
    described.write_text(described.read_text().replace('"tile_beats": 512', '"tile_beats": 256'))
    for module in (boards, generate, registers):
        monkeypatch.setattr(module, "hls_folder", lambda: copy)
    boards.board.cache_clear()
    try:
        assert {path.name for path in generate.stale()} == {"board.hpp", "board.svh", "registers.json"}
        assert generate.main(["--check"]) == 1
        assert generate.main([]) == 0
        assert generate.main(["--check"]) == 0
    finally:
        boards.board.cache_clear()


def test_an_unknown_board_names_the_known_ones():
    with pytest.raises(ValueError, match="kv260, pynq-z2, u250, zcu104"):
        boards.board("de10-nano")


def test_a_board_described_wrongly_is_refused(monkeypatch, tmp_path):
    described = json.loads((boards.hls_folder() / "boards" / "kv260.json").read_text())
    described["ports"]["bits"] = 96
    (tmp_path / "boards").mkdir()
    (tmp_path / "boards" / "wide.json").write_text(json.dumps(described))
    monkeypatch.setattr(boards, "hls_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"name='kv260' is not that of its file; ports\.bits=96"):
        boards.board("wide")


def dsps(kernel: str, board: boards.Board) -> int:
    """Of its arithmetic: a floating-point multiplier takes 3 DSPs, an adder 2 or none in the fabric (AMD PG060, full
    usage); one DSP makes two int8 products. What addresses take is left out."""
    multiplier, adder = 3, 0 if kernel in board.fabric_adders else 2
    lanes = board.float_lanes
    if kernel == "adam":
        return lanes * (9 * multiplier + 6 * adder)
    if kernel == "reduce":
        return board.ports.number * 2 * lanes * (multiplier + adder)
    array = board.sizes[kernel]
    macs = array["inputs"] * array["outputs"]
    return macs // 2 if kernel == "conv_int8" else macs * (multiplier + adder)


@pytest.mark.parametrize("name", boards.names())
def test_overlays_hold_every_kernel_and_no_more_than_the_boards_dsps_are_enough_for(name: str):
    board = boards.board(name)
    assert {kernel for of_one in board.overlays.values() for kernel in of_one} == set(registers.kernels())
    assert set(board.fabric_adders) <= set(registers.kernels())
    for overlay, of_one in board.overlays.items():
        taken = sum(dsps(kernel, board) for kernel in of_one)
        assert taken <= board.resources["dsp"], f"{overlay} takes {taken}"
        assert list(of_one) == [kernel for kernel in registers.kernels() if kernel in of_one]


def test_a_small_board_needs_several_overlays_and_adders_without_dsps():
    board = boards.board("pynq-z2")
    assert sum(dsps(kernel, board) for kernel in registers.kernels()) > board.resources["dsp"]
    with_dsps = replace(board, fabric_adders=())
    assert sum(dsps(kernel, with_dsps) for kernel in board.overlays["train"]) > board.resources["dsp"]
    for kernel in KERNELS:
        text = generate.config(kernel, board)
        assert ("syn.op=op:fadd impl:fabric\nsyn.op=op:fsub impl:fabric\n" in text) == (kernel.top == "adam")


def test_the_register_map_is_that_of_vitis_hls():
    """UG1399's map of a kernel of three pointers and an int: 0x10, 0x1c, 0x28, 0x34."""
    pointers = tuple(registers.Argument(name, "read", "gmem0") for name in "abc")
    arguments = (*pointers, registers.Argument("n", "uint32"), registers.Argument("identity", "identity"))
    kernel = registers.Kernel("op", "top", 1, 1, (), "", (), arguments)
    expected = {"a": 0x10, "b": 0x1C, "c": 0x28, "n": 0x34, "VERSION": 0x3C, "CONFIG_HASH": 0x40}
    assert registers.offsets(kernel) == registers.CONTROL | expected


def test_the_config_hash_differs_from_board_to_board_where_the_host_must_know():
    adam, reduce = registers.kernels()["adam"], registers.kernels()["reduce"]
    small, large = boards.board("pynq-z2"), boards.board("zcu104")
    assert registers.config_hash(adam, small) != registers.config_hash(adam, large)
    assert registers.config_hash(adam, small) != registers.config_hash(reduce, small)
    assert registers.config_hash(adam, large) == registers.config_hash(adam, boards.board("kv260"))


@pytest.mark.parametrize("kernel", KERNELS, ids=by_top)
def test_the_top_function_has_the_arguments_of_its_description(kernel: registers.Kernel):
    types = {"uint32": "uint32_t", "int32": "int32_t", "float32": "float", "identity": "uint64_t*"}
    signature = re.search(rf'extern "C" void {kernel.top}\((.*?)\) \{{', source(kernel), re.DOTALL)
    declared = [" ".join(argument.split()) for argument in signature[1].split(",")]
    for argument, text in zip(kernel.arguments, declared, strict=True):
        kind, _, name = text.rpartition(" ")
        assert name == argument.name
        if argument.pointer:
            assert kind.endswith("*") and kind.startswith("const ") == (argument.kind == "read"), text
        else:
            assert kind == types[argument.kind], text


@pytest.mark.parametrize("kernel", KERNELS, ids=by_top)
def test_the_interface_pragmas_are_those_of_its_description(kernel: registers.Kernel):
    pragmas = re.findall(r"#pragma HLS INTERFACE mode=(\w+) port=(\w+)(?: bundle=(\w+))?", source(kernel))
    memory = {(p, bundle) for mode, p, bundle in pragmas if mode == "m_axi"}
    assert memory == {(a.name, a.bundle) for a in kernel.arguments if a.pointer}
    scalars = {p for mode, p, _ in pragmas if mode == "s_axilite"}
    assert scalars == {a.name for a in kernel.arguments if not a.pointer} | {"return"}
    assert ("ap_ctrl_hs", "return", "") in pragmas


@pytest.mark.parametrize("kernel", KERNELS, ids=by_top)
@pytest.mark.parametrize("name", boards.names())
def test_numbers_in_pragmas_are_those_of_the_board(kernel: registers.Kernel, name: str):
    """Interface and dependence pragmas take no C++ constants."""
    board, text = boards.board(name), source(kernel)
    assert set(re.findall(r"burst_length=(\d+)", text)) == {str(board.burst.beats)}
    assert set(re.findall(r"_outstanding=(\d+)", text)) == {str(board.burst.outstanding)}
    assert set(re.findall(r"\bdistance=(\d+)", text)) <= {str(board.sizes["reduce"]["adder_cycles"])}


@pytest.mark.parametrize("name", boards.names())
def test_the_tcl_variables_are_read_by_tclsh(name: str):
    if shutil.which("tclsh") is None:
        pytest.skip("needs tclsh")
    script = (
        f"source {boards.hls_folder()}/generated/{name}/board.tcl; puts $accelops_part; puts [llength $accelops_ports]"
    )
    said = subprocess.run(["tclsh"], input=script, capture_output=True, text=True, check=True).stdout.split()
    assert said == [boards.board(name).part, str(boards.board(name).ports.number)]
