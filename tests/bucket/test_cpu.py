"""The fast CPU kernels obey the contract, in every configuration and with every instruction set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from accelops.kernels.bucket import cpu
from accelops.kernels.bucket.spec import BucketSpec

from .contract import Float32Contract

LONG = 2**31 + 77


class CpuContract(Float32Contract):
    implementation = cpu


class TestStreaming(CpuContract):
    config = cpu.Config(stream=True)


class TestCached(CpuContract):
    config = cpu.Config(stream=False)

    def test_more_than_2_to_the_31_elements(self) -> None:
        if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 2.5 * 2 * LONG:
            pytest.skip("needs 11 GB of free memory")
        column = torch.arange(7.0)
        flat = self.pack([column.expand(LONG // 7, 7), column], torch.bfloat16)
        assert torch.equal(flat[-14:].float(), torch.arange(7.0).repeat(2))


def test_every_config_is_tested() -> None:
    assert {TestStreaming.config, TestCached.config} == set(cpu.configs(BucketSpec("pack", 1)))


def test_a_win_is_claimed_only_where_the_committed_results_show_it() -> None:
    rows = json.loads(Path(__file__).parents[2].joinpath(cpu.RESULTS).read_text())["rows"]
    assert rows
    for row in rows:
        config, why = cpu.heuristic(BucketSpec(**row["spec"]))
        assert cpu.RESULTS in why
        assert config is None or row["ratio_vs_torch"]["cpu"] >= 1, row


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_the_contract_holds_with_instruction_set(isa: str) -> None:
    asked = os.environ.get("ACCELOPS_ISA")
    if asked is not None:
        pytest.skip(f"ACCELOPS_ISA={asked} is set already")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "not 2_to_the_31"]
    done = subprocess.run(command, env={**os.environ, "ACCELOPS_ISA": isa}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
