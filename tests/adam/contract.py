"""What any implementation of the adam op must do; tests/adam/test_<target>.py subclasses AdamContract.

The expectation is one step in fp64 from the rounded operands. The error may be twice that of torch's own step of the same
dtype, or a few units in the last place of the result's scale where torch happens to be exact.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import ModuleType
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from accelops.kernels.adam import aten
from accelops.kernels.adam.lists import Hyper, Lists

HYPER = Hyper(lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0, decoupled=False)
SHAPES = ((7, 3), (1,), (0,), (33, 5, 3), (4097,), ())
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
STATES = ("params", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "masters", "emas")


def make(
    dtype: torch.dtype,
    shapes: tuple[tuple[int, ...], ...] = SHAPES,
    amsgrad: bool = False,
    master: bool = False,
    ema: bool = False,
    steps: tuple[int, ...] = (0, 4, 4, 1000, 17, 2),
) -> Lists:
    """Operands as after some steps; a different count for each parameter."""
    wide = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    state = wide if master else dtype

    def randoms(dtype: torch.dtype) -> list[Tensor]:
        return [torch.randn(s, dtype=torch.complex128 if dtype.is_complex else torch.float64).to(dtype) for s in shapes]

    def squares(dtype: torch.dtype) -> list[Tensor]:
        made = randoms(dtype)
        return [torch.view_as_complex(torch.view_as_real(t).square()) if t.is_complex() else t.square() for t in made]

    def moments(squares: list[Tensor]) -> list[Tensor]:
        """Of the size of the roots of `squares`, as in training; else tiny ones would blow every rounding up."""
        real = [torch.view_as_real(t) if t.is_complex() else t for t in squares]
        made = [(r.double().sqrt() * torch.randn(r.shape, dtype=torch.float64)).to(r.dtype) for r in real]
        return [torch.view_as_complex(m) if t.is_complex() else m for m, t in zip(made, squares, strict=True)]

    params = randoms(wide if master else dtype)
    exp_avg_sqs = squares(state)
    return Lists(
        params=[p.to(dtype) for p in params],
        grads=randoms(dtype),
        exp_avgs=moments(exp_avg_sqs),
        exp_avg_sqs=exp_avg_sqs,
        max_exp_avg_sqs=squares(state) if amsgrad else [],
        state_steps=[torch.tensor(float(s)) for s, _ in zip(itertools.cycle(steps), shapes, strict=False)],
        masters=params if master else [],
        emas=randoms(wide) if ema else [],
    )


def copied(lists: Lists, to: torch.dtype | None = None) -> Lists:
    """The same values in fresh memory of the same layout; `to` another dtype, but for the step counts."""

    def copy(name: str) -> list[Tensor]:
        tensors = getattr(lists, name)
        if to is None or name == "state_steps":
            return [t.clone() for t in tensors]
        return [t.to(torch.complex128 if t.is_complex() else to, copy=True) for t in tensors]

    return Lists(**{name: copy(name) for name in Lists.__dataclass_fields__})


def expected(lists: Lists, hyper: Hyper) -> Lists:
    """One step in fp64 by torch, of copies."""
    lists = copied(lists, torch.float64)
    aten.compose(lists, hyper)
    return lists


def flat(tensor: Tensor) -> Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double().flatten()


def error(got: Tensor, want: Tensor) -> float:
    return float((flat(got) - flat(want)).abs().max()) if got.numel() else 0.0


class AdamContract:
    implementation: ClassVar[ModuleType]
    dtypes: ClassVar[tuple[torch.dtype, ...]] = DTYPES

    @pytest.fixture(autouse=True)
    def _seed(self) -> None:
        seed = torch.seed() % 2**31
        print(f"seed {seed}")
        torch.manual_seed(seed)

    def run(self, lists: Lists, hyper: Hyper = HYPER) -> Lists:
        spec = lists.spec()
        assert self.implementation.unsupported(spec) == []
        with torch.no_grad():
            self.implementation.run(self.implementation.configs(spec)[0], spec, lists, hyper)
        return lists

    def check(self, lists: Lists, hyper: Hyper = HYPER) -> None:
        """One step of ours and one of torch's, from the same operands, against fp64. A list is judged as the one vector
        that it is to the kernels: in a tensor of one element, m may cancel to far below the scale of its terms."""
        want, torchs = expected(lists, hyper), copied(lists)
        aten.compose(torchs, hyper)
        ours = self.run(copied(lists), hyper)
        for name in STATES:
            rows = list(zip(*(getattr(x, name) for x in (ours, torchs, want)), strict=True))
            scale = max((float(flat(exact).abs().max()) for *_, exact in rows if exact.numel()), default=0.0)
            torchs_error = max((error(theirs, exact) for _, theirs, exact in rows), default=0.0)
            for mine, _, exact in rows:
                assert error(mine, exact) <= max(2 * torchs_error, 4 * torch.finfo(mine.dtype).eps * scale), name
        for mine, exact in zip(ours.state_steps, want.state_steps, strict=True):
            assert mine.item() == exact.item()

    @pytest.mark.parametrize("decoupled", [False, True])
    @pytest.mark.parametrize("maximize", [False, True])
    @pytest.mark.parametrize("amsgrad", [False, True])
    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    def test_every_flag_matches_fp64(self, weight_decay: float, amsgrad: bool, maximize: bool, decoupled: bool) -> None:
        hyper = replace(HYPER, weight_decay=weight_decay, maximize=maximize, decoupled=decoupled)
        for dtype in self.dtypes:
            self.check(make(dtype, amsgrad=amsgrad), hyper)

    @pytest.mark.parametrize("amsgrad", [False, True])
    def test_masters_and_averages_match_fp64(self, amsgrad: bool) -> None:
        hyper = replace(HYPER, weight_decay=0.1, grad_factor=0.3, ema_decay=0.9)
        for dtype, master, ema in itertools.product(self.dtypes, (False, True), (False, True)):
            self.check(make(dtype, amsgrad=amsgrad, master=master and dtype in DTYPES[1:], ema=ema), hyper)

    def test_a_half_precision_parameter_is_its_master_rounded(self) -> None:
        lists = self.run(make(torch.bfloat16, master=True))
        for param, master in zip(lists.params, lists.masters, strict=True):
            assert torch.equal(param, master.bfloat16())

    def test_complex_parameters_are_pairs_of_real_ones(self) -> None:
        self.check(make(torch.complex64, amsgrad=True), replace(HYPER, weight_decay=0.1))

    def test_any_layout_of_parameter_gradient_and_state_gives_the_same_step(self) -> None:
        shape = (4, 6, 5, 3)
        plain = make(torch.float32, (shape,), amsgrad=True, ema=True)
        want = self.run(copied(plain))

        def channels_last(t: Tensor) -> Tensor:
            return t.clone(memory_format=torch.channels_last)

        def gaps(t: Tensor) -> Tensor:
            return torch.full((8, 6, 5, 6), float("nan"))[::2, :, :, ::2].copy_(t)

        def permuted(t: Tensor) -> Tensor:
            return t.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)

        layouts = (torch.clone, channels_last, gaps, permuted)
        for of_param, of_grad, of_state in itertools.product(layouts, repeat=3):
            lists = copied(plain)
            for name in (*STATES, "grads"):
                how = of_param if name == "params" else of_grad if name == "grads" else of_state
                getattr(lists, name)[:] = [how(t) for t in getattr(lists, name)]
            lists = self.run(Lists(*(getattr(lists, n) for n in Lists.__dataclass_fields__)))
            for name in STATES:
                for mine, exact in zip(getattr(lists, name), getattr(want, name), strict=True):
                    assert torch.equal(mine, exact), (name, of_param, of_grad, of_state)

    def test_what_lies_between_the_elements_of_a_parameter_is_left_alone(self) -> None:
        whole = torch.full((9, 8), float("nan"))
        lists = make(torch.float32, ((9, 4),))
        lists = replace(lists, params=[whole[:, ::2].copy_(lists.params[0])])
        self.run(lists)
        assert whole[:, 1::2].isnan().all() and not whole[:, ::2].isnan().any()

    def test_gradients_are_not_written(self) -> None:
        lists = make(torch.float32)
        before = [g.clone() for g in lists.grads]
        self.run(lists, replace(HYPER, grad_factor=0.5, weight_decay=0.1, maximize=True))
        assert all(map(torch.equal, before, lists.grads))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_bad_numbers_spread_as_with_torch(self, bad: float) -> None:
        for name, amsgrad in itertools.product(("params", "grads", "exp_avgs", "exp_avg_sqs"), (False, True)):
            lists = make(torch.float32, ((37,),), amsgrad=amsgrad)
            getattr(lists, name)[0][5] = abs(bad) if name == "exp_avg_sqs" else bad
            want = expected(lists, HYPER)
            self.run(lists)
            for state in STATES:
                for mine, exact in zip(getattr(lists, state), getattr(want, state), strict=True):
                    assert torch.equal(mine.isnan(), exact.isnan()) and torch.equal(mine.isinf(), exact.isinf()), name

    def test_a_weight_decay_of_zero_does_not_look_at_the_parameter(self) -> None:
        lists = make(torch.float32, ((3,),))
        lists.params[0][1] = float("inf")
        assert not self.run(lists).exp_avgs[0].isnan().any()

    def test_a_backward_through_the_old_parameter_is_refused(self) -> None:
        lists = make(torch.float32, ((5,),))
        weight = lists.params[0].requires_grad_()
        loss = (weight**2).sum()
        self.run(lists)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_results_do_not_depend_on_the_number_of_threads(self) -> None:
        lists = make(torch.float32, ((70_001,), (3,), (0,), (40_000, 3)), amsgrad=True, ema=True)
        before = torch.get_num_threads()
        results = []
        try:
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                results.append(self.run(copied(lists)))
        finally:
            torch.set_num_threads(before)
        for other, name in itertools.product(results[1:], STATES):
            assert all(map(torch.equal, getattr(results[0], name), getattr(other, name)))

    def test_step_counts_of_either_precision_count(self) -> None:
        for dtype in (torch.float32, torch.float64):
            lists = make(torch.float32, ((3,), (4,)))
            lists = replace(lists, state_steps=[torch.tensor(5.0, dtype=dtype), torch.tensor([8.0], dtype=dtype)])
            assert [s.item() for s in self.run(lists).state_steps] == [6.0, 9.0]

    def test_many_small_tensors_match_fp64(self) -> None:
        self.check(make(torch.float32, tuple((n % 67,) for n in range(500))))
