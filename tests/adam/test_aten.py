"""torch's own Adam obeys the contract, in both of its forms."""

from dataclasses import replace

import pytest
import torch

from accelops.kernels.adam import aten

from .contract import DTYPES, HYPER, AdamContract, make


class TestAten(AdamContract):
    implementation = aten
    dtypes = (*DTYPES, torch.float64)


def test_fused_is_right_for_a_channels_last_parameter_with_a_contiguous_gradient() -> None:
    lists = make(torch.float32, ((4, 6, 5, 3),))
    other = replace(lists, params=[lists.params[0].clone(memory_format=torch.channels_last)])
    other = replace(
        other, **{n: [t.clone() for t in getattr(other, n)] for n in ("exp_avgs", "exp_avg_sqs", "state_steps")}
    )
    aten.run(aten.Config(fused=False), lists.spec(), lists, HYPER)
    aten.run(aten.Config(fused=True), other.spec(), other, HYPER)
    torch.testing.assert_close(other.params[0], lists.params[0])


def test_moments_of_another_dtype_are_not_for_torch() -> None:
    lists = make(torch.bfloat16)
    lists = replace(
        lists, exp_avgs=[m.float() for m in lists.exp_avgs], exp_avg_sqs=[v.float() for v in lists.exp_avg_sqs]
    )
    assert "state_dtype float32" in aten.unsupported(lists.spec())[0]


@pytest.mark.parametrize("config", aten.configs(make(torch.float32).spec()))
def test_every_config_steps(config: aten.Config) -> None:
    lists = make(torch.float32)
    before = [p.clone() for p in lists.params]
    aten.run(config, lists.spec(), lists, HYPER)
    assert not torch.equal(before[0], lists.params[0])
