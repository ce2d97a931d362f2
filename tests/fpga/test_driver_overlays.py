"""Overlays: where they are found, and what is said of a bitstream that is missing, damaged, or another's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from accelops.targets.fpga import boards, model, overlay
from accelops.targets.fpga.driver import Driver
from accelops.targets.fpga.emulator import handoff
from accelops.targets.fpga.emulator.machine import Machine
from accelops.targets.fpga.errors import BoardFault, OverlayMismatch

from .in_process import InProcess
from .launching import PYNQ, WIRES, check_sum, driving, nothing

PYNQ_Z2, ZCU104 = boards.board("pynq-z2"), boards.board("zcu104")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path: Path) -> None:
    """Neither the user's overlays nor their cache."""
    monkeypatch.delenv(overlay.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(overlay, "cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A .bit for the emulated PYNQ-Z2 with adam and reduce, its .hwh beside it."""
    return handoff.write(PYNQ_Z2, ("adam", "reduce"), tmp_path / "mine", "any-name")


def real(bit: Path) -> Path:
    """The same files as if they held logic."""
    data = bit.read_bytes()
    bit.write_bytes(data.replace(overlay.EMULATED, b"A BITSTREAM WORD.\0"))
    assert len(bit.read_bytes()) == len(data)
    return bit


def test_what_an_overlay_holds_is_read_from_its_files(pair: Path):
    opened = overlay.opened(PYNQ_Z2, pair)
    assert opened.kernels == ("adam", "reduce") and opened.emulated
    assert opened.hwh == pair.with_suffix(".hwh")
    assert not overlay.opened(PYNQ_Z2, real(pair)).emulated


def test_the_digest_is_of_both_files(pair: Path):
    before = overlay.opened(PYNQ_Z2, real(pair)).digest
    hwh = pair.with_suffix(".hwh")
    hwh.write_text(hwh.read_text() + "<!-- -->")
    assert overlay.opened(PYNQ_Z2, pair).digest != before


@pytest.mark.parametrize("suffix", [".bit", ".hwh"])
def test_a_missing_file_is_named(pair: Path, suffix: str):
    pair.with_suffix(suffix).unlink()
    with pytest.raises(OverlayMismatch, match=rf"any-name\{suffix} is missing.*make -C hls bit BOARD=pynq-z2"):
        overlay.opened(PYNQ_Z2, pair)


def test_the_hwh_of_another_build_is_refused(pair: Path, tmp_path: Path):
    other = handoff.write(PYNQ_Z2, ("adam",), tmp_path / "other")
    shutil.copy(other.with_suffix(".hwh"), pair.with_suffix(".hwh"))
    with pytest.raises(OverlayMismatch, match=r"its \.hwh is another's: .*copy both from one build"):
        overlay.opened(PYNQ_Z2, pair)


def test_a_bitstream_of_another_board_is_refused(pair: Path):
    with pytest.raises(OverlayMismatch, match="is built for the part xc7z020clg400-1, zcu104 has xczu7ev"):
        overlay.opened(ZCU104, pair)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('DEVICE="7z020"', 'DEVICE="xczu7ev"', r"its \.hwh is for the device xczu7ev"),
        ('NAME="accelops"', 'NAME="blinky"', r"holds the design 'accelops', its \.hwh describes 'blinky'"),
        ("0x43c00000", "0x40000000", "has adam at 0x40000000, registers.json of pynq-z2 says 0x43c00000"),
        ("xilinx.com:hls:", "xilinx.com:ip:", "holds none of the kernels adam"),
        ("</EDKSYSTEM>", "", "is no hardware handoff"),
    ],
)
def test_a_hwh_that_does_not_fit_is_refused(pair: Path, old: str, new: str, message: str):
    hwh = real(pair).with_suffix(".hwh")
    text = hwh.read_text()
    changed = text.replace(old, new)
    assert changed != text
    hwh.write_text(changed)
    with pytest.raises(OverlayMismatch, match=message):
        overlay.opened(PYNQ_Z2, pair)


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-4], lambda d: d[:20], lambda d: b"", lambda d: d[:13] + b"x" + d[14:]]
)
def test_a_damaged_bitstream_is_refused(pair: Path, damage):
    pair.write_bytes(damage(pair.read_bytes()))
    with pytest.raises(OverlayMismatch, match="is no whole bitstream"):
        overlay.opened(PYNQ_Z2, pair)


def test_the_users_path_goes_before_the_variables_folder_and_that_before_the_cache(monkeypatch, tmp_path: Path):
    folders = [tmp_path / name for name in ("given", "variable", "cache")]
    for folder in folders:
        real(handoff.write(PYNQ_Z2, ("reduce",), folder / "deep"))
    monkeypatch.setenv(overlay.FOLDER_VARIABLE, str(folders[1]))
    for given, expected in ((folders[0], 0), (None, 1)):
        assert overlay.find(PYNQ_Z2, "reduce", given).bit == folders[expected] / "deep" / "overlay.bit"
    monkeypatch.delenv(overlay.FOLDER_VARIABLE)
    assert overlay.find(PYNQ_Z2, "reduce").bit.is_relative_to(folders[2])


def test_where_none_serves_all_that_was_looked_at_is_told(pair: Path, monkeypatch, tmp_path: Path):
    real(pair)
    monkeypatch.setenv(overlay.FOLDER_VARIABLE, str(tmp_path / "empty"))
    with pytest.raises(OverlayMismatch) as mismatch:
        overlay.find(PYNQ_Z2, "conv_fp32", pair.parent)
    said = str(mismatch.value)
    for part in (
        "no overlay of pynq-z2 with the kernel conv_fp32",
        f"{pair} holds adam, reduce",
        f"{tmp_path / 'empty'} (no .bit there)",
        f"{tmp_path / 'cache'} (no .bit there)",
        "make -C hls bit BOARD=pynq-z2 KERNELS='adam conv_fp32'",
        "ACCELOPS_OVERLAYS",
    ):
        assert part in said


def test_a_bitstream_that_the_user_named_must_serve(pair: Path):
    with pytest.raises(OverlayMismatch, match="is built for the part"):
        overlay.find(ZCU104, "adam", pair, emulated=True)
    with pytest.raises(OverlayMismatch, match=r"no overlay of pynq-z2 with the kernel conv_int8.*holds adam, reduce"):
        overlay.find(PYNQ_Z2, "conv_int8", pair, emulated=True)


def test_a_bitstream_without_logic_is_not_for_a_real_board(pair: Path):
    with pytest.raises(OverlayMismatch, match="holds adam, reduce for emulation"):
        overlay.find(PYNQ_Z2, "adam", pair)


def test_for_an_emulated_board_it_is_written(tmp_path: Path):
    found = overlay.find(ZCU104, "conv_fp32", emulated=True)
    assert found.emulated and found.kernels == ZCU104.overlays["train"]
    assert found.bit.is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize("wire", WIRES)
def test_a_board_given_anothers_overlay_refuses_it(pair: Path, wire: str):
    with driving(Machine(ZCU104), wire) as driver:
        driver._overlays = pair
        with pytest.raises(OverlayMismatch, match="is built for the part"):
            check_sum(driver, seed=0)
        assert driver.loaded is None


def test_an_emulated_board_refuses_a_real_bitstream(pair: Path):
    """Which the driver does not send, so that it is sent past the driver here."""
    link = InProcess(Machine(PYNQ_Z2))
    with pytest.raises(BoardFault, match="not written for emulation"):
        link.load(overlay.opened(PYNQ_Z2, real(pair)))


def test_an_alveo_card_is_not_driven():
    with pytest.raises(ValueError, match="this driver is for Zynq boards"):
        overlay.base_address(boards.board("u250"), "adam")


@PYNQ
def test_a_changed_overlay_of_the_same_name_is_sent_again(tmp_path: Path):
    """pynq sends nothing whose name is on the board: the name is a hash of the content."""
    machine = Machine(PYNQ_Z2)
    with driving(machine, "pynq") as driver:
        driver._overlays = handoff.write(PYNQ_Z2, ("reduce",), tmp_path, "same-name")
        check_sum(driver, seed=1)
        driver._overlays = handoff.write(PYNQ_Z2, ("adam", "reduce"), tmp_path, "same-name")
        driver.run("adam", model.adam(PYNQ_Z2, 0), **nothing(PYNQ_Z2))
        assert driver.counts.switches == 1


@PYNQ
def test_an_overlay_of_which_a_part_arrived_is_sent_again(tmp_path: Path):
    """The connection was lost on the way, and the file is there under its name."""
    machine = Machine(PYNQ_Z2)
    bit = handoff.write(PYNQ_Z2, ("reduce",), tmp_path)
    name = f"/lib/firmware/accelops-{overlay.opened(PYNQ_Z2, bit).digest[:32]}.bin"
    machine.files.write(name, b"a part")
    with driving(machine, "pynq") as driver:
        driver._overlays = bit
        check_sum(driver, seed=4)
    assert len(machine.files.read(name)) > 100


@PYNQ
def test_a_bitstream_that_linux_did_not_take_is_noticed(monkeypatch):
    """pynq does not look."""
    machine = Machine(PYNQ_Z2)
    with driving(machine, "pynq") as driver:
        monkeypatch.setitem(machine.files.writers, "/sys/class/fpga_manager/fpga0/firmware", lambda name: None)
        machine.files.write("/sys/class/fpga_manager/fpga0/state", b"write error\n")
        with pytest.raises(BoardFault, match=r"Linux did not take .*\.bit: .*state says 'write error'"):
            check_sum(driver, seed=6)


@PYNQ
def test_nothing_is_kept_of_metadata_in_pynqs_folder(tmp_path: Path):
    """Processes would race on it, and read another's: it is kept under a hash of the .bit alone."""
    from pynq.pl_server import global_state

    kept = [Path(global_state.STATE_DIR) / name for name in ("_current_metadata.pkl", "global_pl_state_.json")]
    before = [path.stat().st_mtime_ns if path.exists() else None for path in kept]
    with driving(Machine(PYNQ_Z2), "pynq") as driver:
        check_sum(driver, seed=2)
    assert [path.stat().st_mtime_ns if path.exists() else None for path in kept] == before


def test_a_driver_takes_the_overlays_that_it_is_given(pair: Path):
    driver = Driver(InProcess(Machine(PYNQ_Z2)), overlays=pair.parent)
    check_sum(driver, seed=3)
    assert driver.loaded is not None and driver.loaded.bit == pair
    driver.close()
