"""benchmarks/gpu.py, without a GPU: what it plans, what it compiles, and a rehearsal of its stages in Triton's interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from accelops.bench import suites
from accelops.bench.suites import Layer

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def tiny() -> Iterator[Layer]:
    yield Layer(3, 8, 6, 3, first=True)
    yield Layer(8, 8, 5, 3, groups=8, bias=True)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    """`gpu(*arguments)` runs the script on a tiny network: its exit code, and the JSON."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu as script

    monkeypatch.setitem(suites.NETWORKS, "cifar", (tiny, 1))
    monkeypatch.setenv("ACCELOPS_CACHE", str(tmp_path))
    shrink(script, monkeypatch)

    def run(*arguments: str) -> tuple[int, Any]:
        output = tmp_path / "gpu.json"
        common = ["--suites", "cifar", "--dtypes", "float32", "--output", str(output), "--seed", "3"]
        code = script.main([*arguments, *common])
        return code, json.loads(output.read_text()) if output.exists() else None

    return run


def shrink(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SECONDS", 0.0)
    monkeypatch.setattr(script, "CHECKED_OF_A_KIND", 1)
    monkeypatch.setattr(script, "LISTS", (script.AdamSpec(1003, 3), script.BucketSpec("pack", 1003, 3)))


def test_a_rehearsal_goes_through_the_stages_and_calls_itself_simulated(gpu: Callable[..., tuple[int, Any]]) -> None:
    code, report = gpu("correctness", "tuning", "layers", "--device", "cpu")
    assert code == 0
    assert report["evidence"]["kind"] == "simulated" and report["seed"] == 3 and report["left_out"] == []
    assert report["correctness"]["configs"] > 10 and report["correctness"]["wrong"] == []
    assert 0 < report["correctness"]["worst_share_of_allowed"] <= 1
    assert [result["suite"] for result in report["results"]] == ["cifar"]
    assert report["tuned"]["conv"]["op"] == "conv" and report["tuned"]["conv"]["entries"]


def test_a_wrong_kernel_is_reported_and_fails_the_run(
    gpu: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelops.kernels.bucket import triton

    monkeypatch.setattr(triton, "run", lambda *arguments: None)
    code, report = gpu("correctness", "--device", "cpu")
    wrong = report["correctness"]["wrong"]
    assert code == 1 and len(wrong) == len(triton.configs(None))
    assert {json.loads(piece["spec"])["numel"] for piece in wrong} == {1003}


def test_what_time_does_not_allow_is_named(gpu: Callable[..., tuple[int, Any]]) -> None:
    code, report = gpu("tuning", "layers", "lists", "--device", "cpu", "--minutes", "0")
    assert code == 0 and report["results"] == []
    assert report["left_out"] == [
        "tuning of cifar in float32",
        "cifar in float32",
        "adam in float32",
        "bucket in float32",
    ]


def test_a_dry_run_compiles_what_would_be_checked(
    gpu: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # of the processes that compile
    code, report = gpu("--dry-run", "--architectures", "sm_90")
    [compiled] = report["compiled"]
    assert code == 0 and report["evidence"]["kind"] == "compiled" and report["evidence"]["device"] == "sm_90"
    assert compiled["failed"] == [] and compiled["by_architecture"] == {"sm_90": compiled["kernels"]}
    assert {"conv slide", "adam step", "bucket move"} <= set(compiled["by_kernel"])
    assert f"{compiled['kernels']} kernels compiled" in capsys.readouterr().out


def test_the_plan_needs_nothing_but_torch_and_triton_and_no_installation(tmp_path: Path) -> None:
    """From another folder, in a Python that does not see what is installed beside them."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(('typer', 'rich', 'platformdirs', 'transformers', 'accelops._native')))\n"
    program = f"{blocked}sys.path.insert(0, {str(FOLDER)!r})\nsys.argv = ['gpu.py', '--list']\nimport runpy; runpy.run_path({str(FOLDER / 'gpu.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "correctness: Every Config" in done.stdout and "mobilenet_v3 bfloat16: 262 problems" in done.stdout
