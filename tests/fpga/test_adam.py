"""The Adam kernel, C-simulated: its own formula to the bit, torch's Adam and AdamW in fp64 closely, and the modelled trips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from accelops.targets.fpga import boards, model

AMSGRAD, BF16 = 1, 2
SIZES = (0, 1, 2, 7, 64, 1003)


@dataclass(frozen=True)
class Hyper:
    lr: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    maximize: bool = False
    step: int = 3

    def factors(self) -> dict[str, float]:
        coupled = 0.0 if self.decoupled else self.weight_decay
        return {
            "grad_factor": -1.0 if self.maximize else 1.0,
            "l2": coupled,
            "decay": 1 - self.lr * self.weight_decay if self.decoupled else 1.0,
            "beta1_rest": 1 - self.beta1,
            "beta2": self.beta2,
            "beta2_rest": 1 - self.beta2,
            "step_size": self.lr / (1 - self.beta1**self.step),
            "inv_root_correction2": (1 - self.beta2**self.step) ** -0.5,
            "eps": self.eps,
        }


HYPERS = (
    Hyper(),
    Hyper(weight_decay=0.1),
    Hyper(weight_decay=0.1, decoupled=True, step=1),
    Hyper(maximize=True, beta1=0.0, eps=1e-3, step=1000),
)


def operands(numel: int, seed: int) -> dict[str, torch.Tensor]:
    """fp32, as long as whole beats of the widest board; NaN behind the last element. The seed is the test's parameter."""
    torch.manual_seed(seed)
    whole = -(-max(numel, 1) // 32) * 32
    arrays = {name: torch.full((whole,), torch.nan) for name in ("grad", "weight", "exp_avg", "exp_avg_sq", "max")}
    for name, array in arrays.items():
        values = torch.randn(numel)
        array[:numel] = values.abs() if name in ("exp_avg_sq", "max") else values
    return arrays


def run(kernel, x: dict[str, torch.Tensor], numel: int, hyper: Hyper, flags: int):
    """In place; returns bf16 copies of the weights, and the trips."""
    grad = x["grad"].bfloat16() if flags & BF16 else x["grad"]
    rounded = torch.full((len(grad),), torch.nan, dtype=torch.bfloat16)
    at = {name: array.data_ptr() for name, array in x.items()}
    trips = kernel.run(
        grad=grad.data_ptr(),
        weight=at["weight"],
        exp_avg=at["exp_avg"],
        exp_avg_sq=at["exp_avg_sq"],
        max_exp_avg_sq=at["max"],
        weight_out=at["weight"],
        exp_avg_out=at["exp_avg"],
        exp_avg_sq_out=at["exp_avg_sq"],
        max_exp_avg_sq_out=at["max"],
        rounded_out=rounded.data_ptr(),
        numel=numel,
        flags=flags,
        **hyper.factors(),
    )
    return rounded[:numel], trips


def by_numpy(x: dict[str, torch.Tensor], numel: int, hyper: Hyper, flags: int) -> dict[str, np.ndarray]:
    """The formula of hls/adam/adam.hpp, in fp32, operation by operation."""
    f = {name: np.float32(value) for name, value in hyper.factors().items()}
    g = (x["grad"].bfloat16().float() if flags & BF16 else x["grad"])[:numel].numpy()
    p, m, v, largest = (x[name][:numel].numpy() for name in ("weight", "exp_avg", "exp_avg_sq", "max"))
    g = f["grad_factor"] * g
    if f["l2"] != 0:
        g = g + f["l2"] * p
    m = m + f["beta1_rest"] * (g - m)
    v = f["beta2"] * v + (f["beta2_rest"] * g) * g
    largest = np.maximum(v, largest) if flags & AMSGRAD else v
    p = f["decay"] * p - (f["step_size"] * m) / (np.sqrt(largest) * f["inv_root_correction2"] + f["eps"])
    return {"weight": p, "exp_avg": m, "exp_avg_sq": v, "max": largest}


@pytest.mark.parametrize("board", boards.names())
@pytest.mark.parametrize("flags", [0, AMSGRAD, BF16, AMSGRAD | BF16])
def test_equals_numpy_to_the_bit_and_makes_the_modelled_trips(simulated, board: str, flags: int):
    for seed, numel in enumerate(SIZES):
        for hyper in HYPERS:
            x = operands(numel, seed)
            expected = by_numpy(x, numel, hyper, flags)
            rounded, trips = run(simulated("adam", board), x, numel, hyper, flags)
            for name in ("weight", "exp_avg", "exp_avg_sq", *(["max"] if flags & AMSGRAD else [])):
                assert np.array_equal(x[name][:numel].numpy(), expected[name]), (name, numel, hyper)
            if flags & BF16:
                assert torch.equal(rounded, x["weight"][:numel].bfloat16())
            assert trips == model.adam(boards.board(board), numel, bool(flags & AMSGRAD), bool(flags & BF16)).trips


@pytest.mark.parametrize("hyper", HYPERS, ids=str)
@pytest.mark.parametrize("amsgrad", [False, True])
def test_is_as_close_to_fp64_as_torch_is(simulated, hyper: Hyper, amsgrad: bool):
    """Steps from fresh state on; the error at most twice that of torch's fp32 kernel, or four units in the last place."""
    numel, steps = 501, 3
    torch.manual_seed(0)
    start, grads = torch.randn(numel), torch.randn(steps, numel)
    by_torch = {}
    for dtype in (torch.float32, torch.float64):
        parameter = torch.nn.Parameter(start.to(dtype).clone())
        kind = torch.optim.AdamW if hyper.decoupled else torch.optim.Adam
        optimizer = kind(
            [parameter],
            lr=hyper.lr,
            betas=(hyper.beta1, hyper.beta2),
            eps=hyper.eps,
            weight_decay=hyper.weight_decay,
            maximize=hyper.maximize,
            amsgrad=amsgrad,
        )
        for grad in grads:
            parameter.grad = grad.to(dtype)
            optimizer.step()
        by_torch[dtype] = parameter.detach().double()

    x = {name: array * 0 for name, array in operands(numel, 0).items()}
    x = {name: torch.nan_to_num(array) for name, array in x.items()}
    x["weight"][:numel] = start
    for step, grad in enumerate(grads, 1):
        x["grad"][:numel] = grad
        stepped = Hyper(**{**vars(hyper), "step": step})
        run(simulated("adam", "pynq-z2"), x, numel, stepped, AMSGRAD if amsgrad else 0)
    exact = by_torch[torch.float64]
    error = (x["weight"][:numel].double() - exact).abs().max()
    allowed = 2 * (by_torch[torch.float32] - exact).abs().max()
    assert error <= max(allowed, 4 * torch.finfo(torch.float32).eps * exact.abs().max())


def test_adam_is_modelled_to_reach_80_percent_of_memory_bandwidth():
    for name in boards.names():
        for amsgrad, bf16 in ((False, False), (True, False), (False, True)):
            assert model.adam(boards.board(name), 25_000_000, amsgrad, bf16).bandwidth_fraction >= 0.8
