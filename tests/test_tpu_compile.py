"""libtpu compiles the lowerings for TPUs that are not there, and estimates for them what it estimated before."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest

pytest.importorskip("jax")
pytest.importorskip("libtpu")

from accelops.bench.tpu_aot import cases, configs, tuning
from accelops.bench.tpu_aot.cases import Case
from accelops.bench.tpu_aot.chips import CHIPS
from accelops.bench.tpu_aot.estimate import HLO
from accelops.bench.tpu_aot.process import Compiler, CompilerFailed, Request
from accelops.bench.tpu_aot.rows import OURS, STOCK, Laboratory, Row, row
from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.bucket.spec import BucketSpec
from accelops.kernels.conv.spec import ConvSpec
from accelops.kernels.conv.xla import table

from .tpu import estimates

COMMITTED = json.loads(estimates.FILE.read_text())
PINNED = {name: COMMITTED["versions"][name] for name in estimates.PACKAGES}
V5E = CHIPS["v5e"]


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return estimates.compiled()


@pytest.mark.parametrize("name", COMMITTED["estimates_us"])
def test_an_estimate_is_as_committed(rows: dict[str, Row], name: str):
    installed = {package: version(package) for package in estimates.PACKAGES}
    if installed != PINNED:
        pytest.skip(f"the estimates are of {PINNED}, installed are {installed}")
    expected, found = COMMITTED["estimates_us"][name], rows[name]
    assert found.error == "" and found.source == expected["source"]
    assert found.estimate_us == (expected["ours"] and pytest.approx(expected["ours"], rel=0.1))
    assert found.stock is not None and found.stock.estimate_us == pytest.approx(expected["stock"], rel=0.1)


def test_all_committed_estimates_are_looked_at(rows: dict[str, Row]):
    assert set(rows) == set(COMMITTED["estimates_us"])


@pytest.mark.parametrize("chip", CHIPS)
def test_a_dense_convolution_is_as_fast_as_stock(rows: dict[str, Row], chip: str):
    found = rows[f"dense {chip}"]
    assert found.ratio_vs_stock is not None and found.ratio_vs_stock >= 1 / 1.02


@pytest.mark.parametrize("chip", CHIPS)
def test_a_step_of_adam_lies_in_the_memory_that_it_is_given(rows: dict[str, Row], chip: str):
    ours = rows[f"adam {chip}"].ours
    assert ours is not None and ours.donated == ours.aliased == 4
    # No more than the scalars of the step: one of the four arrays alone would be 4 MiB.
    assert ours.temporary_bytes < 2**18


@pytest.mark.parametrize("chip", ["v5e", "v6e"])
def test_a_step_of_adam_in_one_launch_beats_the_ops_of_eager_mode(rows: dict[str, Row], chip: str):
    found = rows[f"adam in eager mode {chip}"]
    assert found.ours is not None and found.stock is not None and (found.ours.launches, found.stock.launches) == (1, 7)
    assert found.ratio_vs_stock is not None and found.ratio_vs_stock >= 2.5


def test_a_kernel_is_estimated_by_the_profile_and_not_compared_with_what_has_none(rows: dict[str, Row]):
    found = rows["depthwise v5e"]
    assert found.ours is not None and found.stock is not None
    assert found.ours.estimator != HLO and found.stock.estimator == HLO and found.ratio_vs_stock is None
    assert "cannot model" in found.no_ratio


def test_a_chip_without_a_profile_leaves_a_row_that_says_so(rows: dict[str, Row]):
    found = rows["depthwise v4"]
    assert found.error == "" and found.estimate_us is None and found.ratio_vs_stock is None
    assert found.ours is not None and found.ours.unmodelled and "Dma latency model" in found.no_ratio


LOWERED = [
    *(case for weight in ("128,128,3,3", "128,4,3,3", "128,1,3,3") for case in cases.described("conv", f"2,128,14,14:{weight}")),
    *(Case("adam", AdamSpec(4096, 2, device="xla", **options)) for options in ({}, {"amsgrad": True}, {"dtype": "bfloat16", "master": True, "stochastic": True})),
    *(Case(direction, BucketSpec(direction, 4096, 2, wire_dtype="bfloat16", device="xla")) for direction in ("pack", "unpack")),
    *cases.described("bucket", "4096:2"),
]  # fmt: skip


@pytest.mark.parametrize("chip", CHIPS)
def test_every_lowering_in_every_config_compiles(chip: str):
    with Compiler() as compiler:
        for case in LOWERED:
            for config in configs.every(case):
                options = case.options | {"config": config}
                made = Request(OURS[case.spec.op], case.spec, case.topology(CHIPS[chip]), case.devices, options)
                assert len(compiler.compile(made)) == 1


def test_161_gradients_are_reduced_at_once_and_none_is_copied():
    case = cases.suite("bucket")[0]
    with Laboratory() as laboratory:
        found = row(laboratory, case, V5E, {"type": "xla.Config"}, baseline=False)
    assert (found.topology, found.error) == ("v5e:2x4", "") and found.ours is not None
    assert (found.ours.collectives, found.ours.copies, found.ours.aliased) == (1, 0, 161)


def test_several_processes_compile_at_once():
    """libtpu's lock file would let one alone."""
    spec = AdamSpec(4096, device="xla")
    with Compiler() as one, Compiler() as other:
        for compiler in (one, other):
            assert compiler.compile(Request(STOCK["adam"], spec, V5E.topology))


@pytest.mark.parametrize(
    ("topology", "devices", "words"),
    [
        ("v5e:3x3", 1, "no such topology; name one such as v5e:2x4"),
        ("v5e:2x2", 8, "has 4 devices, 8 are asked for (name a larger one"),
        ("v9:2x2", 1, "does not know the generation"),
    ],
)
def test_a_topology_that_is_not_there_is_named(topology: str, devices: int, words: str):
    with Compiler() as compiler, pytest.raises(CompilerFailed) as failure:
        compiler.compile(Request(STOCK["adam"], AdamSpec(4096, device="xla"), topology, devices))
    assert words in str(failure.value)


def test_tuning_writes_a_table_that_is_looked_up(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    grouped = cases.described("conv", "2,128,14,14:128,4,3,3")[:1]
    [choice] = tuning.tune(grouped, "v5e")
    assert choice.ratio == pytest.approx(choice.estimates_us["stock"] / min(choice.estimates_us[c] for c in choice.estimates_us if c != "stock"))  # fmt: skip
    [file] = tuning.write([choice], tmp_path)
    assert file.name == "tpu_v5e.json" and json.loads(file.read_text())["note"] == "compiler estimate, not measured"
    monkeypatch.setattr(table, "file_of", lambda chip: file)
    larger = replace(grouped[0].spec, input=(64, 128, 14, 14), bias=True)
    found = table.lookup(larger, "v5e")
    assert found is not None and found.config == choice.config
    assert table.lookup(replace(larger, dtype="float32"), "v5e") is None
    assert table.lookup(replace(larger, input=(1, 128, 14, 14)), "v5e") is None


@pytest.mark.parametrize("chip", ["v5e", "v5p", "v6e"])
def test_a_shipped_choice_is_one_that_the_lowering_offers_and_is_nowhere_slower_than_stock(chip: str):
    entries = table.read(table.file_of(chip))
    assert entries
    for name, entry in entries.items():
        spec = ConvSpec.from_json(name)
        assert entry.config in configs.every(Case("", spec)) and entry.ratio >= 1.0
        found = table.lookup(replace(spec, input=(2 * spec.input[0], *spec.input[1:]), activation="relu"), chip)
        assert found == entry


def test_tuning_needs_a_choice():
    with pytest.raises(ValueError, match="no case leaves a choice"):
        tuning.tune(cases.described("conv", "2,16,8,8:16,16,3,3"), "v5e")
