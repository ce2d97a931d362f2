"""torch's own Adam obeys the contract, in both of its forms."""

from dataclasses import replace

import pytest
import torch

from accelops.kernels.adam import aten

from .contract import DTYPES, HYPER, AdamContract, copied, make


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


def test_moments_of_full_precision_step_a_copy_of_their_parameter() -> None:
    lists = make(torch.bfloat16, amsgrad=True)
    wide = {n: [t.float() for t in getattr(lists, n)] for n in ("exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs")}
    lists = replace(lists, **wide)
    exact = replace(copied(lists, torch.float32), state_steps=[s.clone() for s in lists.state_steps])
    for config in aten.configs(lists.spec()):
        mine, want = copied(lists), copied(exact)
        aten.run(config, mine.spec(), mine, HYPER)
        aten.run(config, want.spec(), want, HYPER)
        assert all(torch.equal(p, w.bfloat16()) for p, w in zip(mine.params, want.params, strict=True))
        for name in wide:
            assert all(map(torch.equal, getattr(mine, name), getattr(want, name)))


@pytest.mark.parametrize("config", aten.configs(make(torch.float32).spec()))
def test_every_config_steps(config: aten.Config) -> None:
    lists = make(torch.float32)
    before = [p.clone() for p in lists.params]
    aten.run(config, lists.spec(), lists, HYPER)
    assert not torch.equal(before[0], lists.params[0])
