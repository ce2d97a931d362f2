"""Compiling for TPUs that are not there, as far as it needs neither jax nor libtpu: reading what the compiler writes,
estimates and ratios, processes that die or hang, and the commands. The compiler itself is in test_tpu_compile.py.

tests/tpu/samples has what libtpu 0.0.51 wrote, shortened: computations that are not looked into, attributes, code.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from accelops import cli
from accelops.bench.tpu_aot import NOT_MEASURED, cases, hlo, process, profile, result, rows
from accelops.bench.tpu_aot.chips import CHIPS, chips
from accelops.bench.tpu_aot.estimate import HLO, LLO, MIXED, ROOFLINE, comparable, estimate
from accelops.bench.tpu_aot.executable import Executable
from accelops.bench.tpu_aot.hlo import Instruction
from accelops.bench.tpu_aot.process import Compiler, CompilerFailed, Request
from accelops.bench.tpu_aot.profile import Estimated
from accelops.kernels.conv.spec import ConvSpec
from accelops.targets import TargetUnavailable

from .tpu.child import SAMPLES

V5E = CHIPS["v5e"]
CONV = cases.described("conv", "8,128,56,56:128,4,3,3")[0]


def sample(name: str) -> str:
    return (SAMPLES / name).read_text()


def executable(*instructions: Instruction, size: int = 0, **found: Any) -> Executable:
    return Executable("0", 0.5, instructions, size, **found)


def timed(name: str, cycles: int) -> Instruction:
    return Instruction(name, "fusion", cycles)


KERNEL = Instruction("kernel", "custom-call", None, kernel=True)


def test_the_entry_of_a_module_has_its_instructions_with_their_cycles():
    found = hlo.entry(sample("grouped.hlo"))
    assert [(i.name, i.opcode, i.cycles) for i in found] == [
        ("copy.7", "copy", 4973),
        ("copy.3", "copy", 52710),
        ("copy.4", "copy", 22400),
        ("fusion", "fusion", 1845984),
        ("copy.6", "copy", 786492),
    ]


def test_a_pallas_kernel_is_known_by_its_target_and_has_no_cycles():
    found = {i.name: i for i in hlo.entry(sample("pallas.hlo"))}
    assert [name for name, i in found.items() if i.kernel] == ["adam_pallas.1"]
    assert found["adam_pallas.1"].cycles is None and found["pad_maximum_fusion"].cycles == 1825


def test_a_conditional_has_the_cycles_of_its_cheapest_branch():
    text = sample("conditional.hlo")
    assert {i.opcode: i.cycles for i in hlo.entry(text)}["conditional"] == 0
    both = text.replace("ROOT %tuple.13", '%x = f32[] copy(%y), "estimated_cycles":"77"\n  ROOT %tuple.13')
    assert {i.opcode: i.cycles for i in hlo.entry(both)}["conditional"] == 77


def test_a_conditional_with_a_kernel_in_it_is_not_modelled():
    text = sample("conditional.hlo").replace(
        "ROOT %tuple.13", f'%x = f32[] custom-call(%y), custom_call_target="{hlo.PALLAS}"\n  ROOT %tuple.13'
    )
    [conditional] = [i for i in hlo.entry(text) if i.opcode == "conditional"]
    assert conditional.cycles is None and conditional.unmodelled


def test_collectives_are_counted_once_and_are_not_modelled():
    [reduced] = hlo.entry(sample("all_reduce.hlo"))
    assert reduced.collective and reduced.unmodelled
    start, done = (Instruction("a", f"all-reduce-{end}", None) for end in ("start", "done"))
    assert start.collective and not done.collective and done.unmodelled


def test_aliased_arguments_are_found():
    assert hlo.aliased(sample("pallas.hlo")) == (0, 2, 3)
    assert hlo.aliased(sample("all_reduce.hlo")) == (0, 1, 2, 3, 4)
    assert hlo.aliased(sample("grouped.hlo")) == ()


def test_text_that_is_no_module_is_refused():
    with pytest.raises(ValueError, match="no computation in it begins with ENTRY"):
        hlo.entry("HloModule broken")


def test_a_profile_is_read_once(tmp_path: Path):
    (tmp_path / "a_TPU v5 lite_static_llo_profile.textproto").write_text(sample("profile.textproto"))
    expected = {"copy.27": Estimated(10009, 3), "divide_subtract_fusion": Estimated(27983, 1)}
    assert profile.take(tmp_path) == expected and profile.take(tmp_path) == {}


def test_why_the_profiler_aborted_is_found_in_its_log():
    why = profile.abortion(sample("abortion.log"))
    assert (
        why
        == "the static LLO profiler cannot model fusion: Unsupported DMA direction for latency modeling: dma-general"
    )
    assert profile.abortion("all went well") is None


def test_an_estimate_is_the_largest_of_cycles_bytes_and_flops():
    by_cycles = estimate([executable(timed("a", 1500), timed("b", 1500), size=8)], V5E, flops=1)
    assert (by_cycles.seconds, by_cycles.source) == (pytest.approx(2e-6), HLO)
    by_bytes = estimate([executable(timed("a", 1500), size=819_000_000)], V5E, flops=1)
    assert (by_bytes.seconds, by_bytes.source, by_bytes.estimator) == (pytest.approx(1e-3), ROOFLINE, HLO)
    by_flops = estimate([executable(timed("a", 1500), size=8)], V5E, flops=197e9)
    assert (by_flops.seconds, by_flops.source) == (pytest.approx(1e-3), ROOFLINE)


def test_launches_are_bound_each_by_itself():
    slow, wide = executable(timed("a", 1_500_000)), executable(timed("a", 1), size=819_000_000)
    assert estimate([slow, wide], V5E, flops=1).seconds == pytest.approx(2e-3)


def test_a_profile_counts_for_instructions_that_are_alike():
    profiled = {"copy.27": Estimated(10, 3), "kernel": Estimated(5, 1)}
    launch = executable(timed("copy.27", 99), timed("copy.30", 99), timed("copy.31", 99), KERNEL, profile=profiled)
    found = estimate([launch], V5E, flops=0, llo=True)
    assert (found.seconds, found.estimator, found.unmodelled) == (pytest.approx(35 / V5E.clock), LLO, ())
    assert estimate([launch], V5E, flops=0).unmodelled == ("kernel",)
    another = executable(*launch.instructions, timed("copy.32", 99), profile=profiled)
    assert estimate([another], V5E, flops=0, llo=True).seconds == pytest.approx((35 + 99) / V5E.clock)


def test_estimates_of_two_estimators_do_not_compare():
    whole = executable(timed("a", 9), profile={"a": Estimated(5, 1)})
    part = executable(timed("a", 9), KERNEL, profile={"kernel": Estimated(5, 1)})
    by_hlo, by_llo = estimate([whole], V5E, 0), estimate([whole], V5E, 0, llo=True)
    mixed = estimate([part], V5E, 0, llo=True)
    assert mixed.estimator == MIXED and by_llo.estimator == LLO
    assert comparable(by_hlo, by_hlo) and comparable(by_llo, by_llo)
    assert not comparable(by_hlo, by_llo) and not comparable(mixed, mixed)
    unknown = estimate([part], V5E, 0)
    assert not comparable(by_hlo, unknown) and not comparable(unknown, unknown)


def request(behaviour: str) -> Request:
    return Request(behaviour, CONV.spec, V5E.topology)


def compiler(deadline: float = 60.0) -> Compiler:
    return Compiler(deadline, module="tests.tpu.child")


def test_one_process_answers_all_requests_and_ends_with_its_context():
    with compiler() as asked:
        [first], [second] = asked.compile(request("a")), asked.compile(request("b"))
        assert first.program == second.program and first.instructions == (timed("fusion", 1500),)
        pid = int(first.program)
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_that_hangs_is_ended_at_its_deadline_and_the_next_request_has_another():
    with compiler(deadline=2.0) as asked:
        begin = time.monotonic()
        with pytest.raises(CompilerFailed, match="no answer within 2 s and was ended; --deadline allows it more"):
            asked.compile(request("hang"))
        assert time.monotonic() - begin < 15
        asked.deadline = 60.0
        assert len(asked.compile(request("a"))) == 1


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("abort", "killed by SIGABRT: the static LLO profiler cannot model fusion: Unsupported DMA direction"),
        ("exit", "exited with code 1: no room left"),
        ("error: ABORTED: accessing libtpu multi-process lockfile.", "remove /tmp/libtpu_lockfile"),
        ("error: ModuleNotFoundError: No module named 'jax'", "pip install 'accelops"),
        ('error: Topology layout "v5e:3x3" is not divisible', "name one such as v5e:2x4"),
        ("error: Invalid TPU external name: TPU v9", "does not know the generation"),
        ("error: Mosaic failed to compile TPU kernel: Unsupported version", "versions that go together"),
    ],
)
def test_a_failure_says_what_happened_and_what_to_do(behaviour: str, words: str):
    with compiler() as asked:
        with pytest.raises(CompilerFailed) as failure:
            asked.compile(request(behaviour))
        assert words in str(failure.value)
        assert len(asked.compile(request("a"))) == 1


class Faulty(rows.Laboratory):
    """A laboratory whose children behave as `ours` and `stock` say."""

    def __init__(self, ours: str, stock: str) -> None:
        super().__init__(60.0)
        self._compiler, self.behaviours = compiler(), {"own": ours, "stock": stock}

    def lowered(self, request: Request, chip: Any, profiled: bool | None = None) -> rows.Lowered:
        behaviour = self.behaviours["own" if ".own:" in request.builder else "stock"]
        return super().lowered(Request(behaviour, request.spec, request.topology), chip, profiled)


def test_a_crash_is_one_row_and_the_next_goes_on():
    with Faulty("abort", "a") as laboratory:
        failed = rows.row(laboratory, CONV, V5E, {})
        laboratory.behaviours = {"own": "a", "stock": "a"}
        after = rows.row(laboratory, CONV, V5E, {})
    assert "killed by SIGABRT" in failed.error and failed.estimate_us is None
    assert after.ratio_vs_stock == 1.0 and after.ours is not None and after.ours.aliased == 1


def test_a_stock_lowering_that_does_not_compile_leaves_an_estimate_without_a_ratio():
    with Faulty("a", "exit") as laboratory:
        row = rows.row(laboratory, CONV, V5E, {})
    assert row.estimate_us and row.ratio_vs_stock is None and row.no_ratio.startswith("the stock lowering: ")


def test_a_row_says_that_it_is_compiled_and_not_measured():
    with Faulty("a", "a") as laboratory:
        row = rows.row(laboratory, CONV, V5E, {"type": "dense.Config", "merge": 1})
    found = result.Result({"kind": "compiled"}, [row]).to_dict()
    [line] = json.loads(json.dumps(found))["rows"]
    assert line["evidence"] == "compiled" and line["note"] == NOT_MEASURED == found["note"]
    assert {"estimate_us", "source", "ratio_vs_stock", "spec", "config", "chip"} <= set(line)
    assert found["geometric_means_vs_stock"] == {"v5e": {"fprop": pytest.approx(1.0)}}


def test_the_suites_are_those_of_the_networks_in_bf16_and_of_resnet50s_parameters():
    specs = [case.spec for case in cases.suite("resnext50")]
    assert {spec.dtype for spec in specs} == {"bfloat16"} and {spec.input[0] for spec in specs} == {64}
    assert {case.spec.tensors for case in cases.suite("adam")} == {161, 1}
    [case, wire] = cases.suite("bucket")
    assert (case.devices, case.topology(V5E), wire.spec.wire_dtype) == (8, "v5e:2x4", "bfloat16")


def test_a_described_convolution_has_its_groups_from_its_shapes():
    spec = cases.described("conv", "64,128,56,56:128,4,3,3", stride=2)[2].spec
    assert isinstance(spec, ConvSpec)
    assert (spec.groups, spec.stride, spec.padding, spec.direction) == (32, (2, 2), (1, 1), "wgrad")
    assert spec.output == (64, 128, 28, 28)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "resnet50", "--target", "v5x"], "choose among v4, v5e, v5p, v6e, v7x"),
        (["--suite", "alexnet"], "suite='alexnet' is unknown; choose one of resnet50"),
        (["--suite", "resnet50", "--match", "9x9"], "no case of resnet50 has that in its name"),
        (["--suite", "resnet50", "--dtype", "int3"], "dtype='int3' is unknown"),
        (["--suite", "resnet50", "--baseline", "jax"], "choose torch or none"),
        ([], "name a --suite"),
        (["--op", "conv"], "name a --suite"),
        (["--op", "gemm", "--shape", "1:1"], "op='gemm' is unknown"),
        (["--op", "conv", "--shape", "1,2"], "expected INPUT:WEIGHT"),
        (["--op", "conv", "--shape", "1,8,9,9:8,3,3,3"], "3 channels of each filter do not divide 8"),
        (["--op", "adam", "--shape", "10:3"], "as many elements in each tensor"),
        (["--op", "adam", "--shape", "ten"], "expected whole numbers"),
    ],
)
def test_what_cannot_be_compiled_exits_2_with_a_reason(arguments: list[str], words: str):
    found = CliRunner().invoke(cli.app, ["tpu", "aot", *arguments])
    assert found.exit_code == 2 and words in " ".join(found.stderr.split()) and not found.stdout


def test_without_jax_or_libtpu_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "find_spec", lambda name: None)
    with pytest.raises(TargetUnavailable, match="needs jax and libtpu: pip install 'accelops"):
        process.check_installed()
    found = CliRunner().invoke(cli.app, ["tpu", "aot", "--suite", "adam", "--target", "v5e"])
    assert found.exit_code == 2 and "pip install" in found.stderr


def test_chips_are_named_once():
    assert [chip.name for chip in chips("v5e, v6e,v5e")] == ["v5e", "v6e"]
