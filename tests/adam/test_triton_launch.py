"""What the Triton step launches, and the tables that it launches with, looked at in place of a launch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import triton.language as tl
from torch import Tensor

from accelops.dispatch import adam as dispatch
from accelops.dispatch import tuned
from accelops.dispatch.adam import adam
from accelops.dispatch.select import forget, observed, use
from accelops.kernels.adam import aten, triton
from accelops.kernels.adam.lists import Hyper, Lists
from accelops.kernels.adam.operands import operands
from accelops.kernels.adam.spec import AdamSpec
from accelops.kernels.adam.triton import tables
from accelops.optim import Adam, AdamW
from accelops.targets.triton import architecture, launching

from .contract import HYPER, make

SHAPES = ((3,), (0,), (8192,), (8193,), (5, 7), (40_001,), (), (4, 3, 2, 2))


@contextmanager
def launches() -> Iterator[list[dict[str, Any]]]:
    """The launches of a `with`, each as its arguments by name, with its "kernel" and "grid"."""
    seen: list[dict[str, Any]] = []

    def launcher(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        given = dict(zip(kernel.arg_names, arguments, strict=False))
        seen.append({"kernel": kernel.__name__, "grid": grid, **given, **constants})

    with launching(launcher, architecture()):
        yield seen


def stepped(lists: Lists, hyper: Hyper = HYPER, config: Any = None) -> dict[str, Any]:
    """The launch of the kernel `step`."""
    spec = lists.spec()
    with launches() as seen, torch.no_grad():
        triton.run(config or triton.configs(spec)[0], spec, lists, hyper)
    assert [launch["kernel"] for launch in seen] == ["count", "step"]
    return seen[1]


def again(lists: Lists, **changed: Any) -> Lists:
    """The same tensors, as the optimizer hands them over at its next step."""
    return replace(lists, **changed)


@pytest.mark.parametrize("config", triton.configs(make(torch.float32).spec()))
def test_the_chunks_hold_each_element_once(config: triton.Config) -> None:
    lists = make(torch.float32, SHAPES)
    launch = stepped(lists, config=config)
    elements = config.block * config.pieces
    assert launch["grid"] == (len(launch["chunks"]),) and elements == launch["BLOCK"] * launch["PIECES"]
    held = [torch.zeros(p.numel()) for p in lists.params]
    for row, index in launch["chunks"].tolist():
        first = index * elements
        assert first < launch["sizes"][row]
        held[row][first : min(first + elements, int(launch["sizes"][row]))] += 1
    assert all(h.eq(1).all() for h in held)


def test_the_tables_say_where_the_tensors_are() -> None:
    lists = make(torch.float32, SHAPES, amsgrad=True, ema=True)
    launch = stepped(lists)
    rows = launch["addresses"].reshape(9, -1)
    for row, column in enumerate(("params", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs")):
        assert rows[row].tolist() == [t.data_ptr() for t in getattr(lists, column)]
    assert not rows[4].any() and rows[5].tolist() == [t.data_ptr() for t in lists.emas]
    assert rows[6].tolist() == [t.data_ptr() for t in lists.state_steps]
    assert launch["grads"].tolist() == [t.data_ptr() for t in lists.grads]


def test_tables_are_kept_and_that_of_the_gradients_follows_them() -> None:
    lists = make(torch.float32, SHAPES)
    first, second = stepped(lists), stepped(again(lists))
    for name in ("chunks", "sizes", "codes", "addresses", "grads"):
        assert first[name] is second[name]
    moved = again(lists, grads=[g.clone() for g in lists.grads])
    third = stepped(moved)
    assert third["grads"].tolist() == [g.data_ptr() for g in moved.grads]
    for name in ("chunks", "sizes", "codes", "addresses"):
        assert first[name] is third[name]


def test_state_that_moves_is_found() -> None:
    lists = make(torch.float32, SHAPES)
    stepped(lists)
    moved = again(lists, exp_avgs=[m.clone() for m in lists.exp_avgs])
    assert stepped(moved)["addresses"].reshape(9, -1)[1].tolist() == [m.data_ptr() for m in moved.exp_avgs]


def test_no_more_tables_are_kept_than_allowed() -> None:
    lists = make(torch.float32, ((3,),))
    for _ in range(tables.MOST + 10):
        stepped(again(lists, grads=[torch.empty(3)]))
    assert len(tables._kept) <= tables.MOST


@pytest.mark.parametrize(
    "dtype, master, vector",
    [(torch.float32, False, 4), (torch.bfloat16, False, 8), (torch.float16, False, 8), (torch.bfloat16, True, 4)],
)
def test_the_widest_tensor_moves_16_bytes_at_once(dtype: torch.dtype, master: bool, vector: int) -> None:
    assert stepped(make(dtype, master=master))["VECTOR"] == vector


def test_parameters_of_several_dtypes_are_one_launch() -> None:
    kinds = [make(d, ((5, 3), (70,))) for d in (torch.float32, torch.bfloat16, torch.float16, torch.complex64)]
    columns = ([t for lists in kinds for t in getattr(lists, name)] for name in Lists.__dataclass_fields__)
    lists = Lists(*columns)
    lists.__dict__["table"] = lists.description  # as on a GPU, whose tensors native code does not read
    assert lists.parts() == [lists]
    launch = stepped(lists)
    assert launch["DTYPE"] is None and launch["STATE"] is None
    assert launch["codes"].tolist() == [0, 0, 1, 1, 2, 2, 0, 0]
    assert launch["sizes"].tolist() == [15, 70] * 3 + [30, 140]


def test_counts_on_the_host_that_agree_are_arguments_and_others_a_table() -> None:
    for steps, tabled in (((4.0, 4.0), False), ((4.0, 1.0), True)):
        lists = make(torch.float32, ((3,), (4,)), steps=steps)
        lists.__dict__["description"] = replace(lists.description, steps_on_device=False)
        with launches() as seen, torch.no_grad():
            triton.run(triton.configs(lists.spec())[0], lists.spec(), lists, HYPER)
        (launch,) = seen
        assert (launch["numbers"] is not None) == tabled
        assert [s.item() for s in lists.state_steps] == [t + 1 for t in steps]
        if tabled:
            assert launch["numbers"].shape == (4, 2)
        else:
            assert launch["step_size"] == pytest.approx(1e-2 / (1 - 0.9**5))
            assert launch["root"] == pytest.approx((1 - 0.99**5) ** -0.5)


def test_a_step_under_capture_bakes_what_is_new_and_holds_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = make(torch.float32, SHAPES)
    before = stepped(lists)
    monkeypatch.setattr(tables, "_captured", {})
    as_usual = tables.Tables.__init__

    def capturing(self: tables.Tables, device: torch.device) -> None:
        as_usual(self, device)
        self.capturing = True

    monkeypatch.setattr(tables.Tables, "__init__", capturing)
    captured = stepped(again(lists))
    assert captured["grads"] is not before["grads"] and torch.equal(captured["grads"], before["grads"])
    for name in ("chunks", "sizes", "codes", "addresses"):
        assert captured[name] is before[name] and any(t is before[name] for t in tables._captured.values())
    kept = dict(tables._kept)
    cold = stepped(make(torch.float32, ((11,), (9000, 3))))  # never stepped before the capture
    assert cold["chunks"].tolist() == [[0, 0], [1, 0], [1, 1], [1, 2], [1, 3]]
    assert tables._kept == kept  # a replay has yet to fill them


def test_moments_in_8_bits_bring_their_scales() -> None:
    spec = AdamSpec(numel=3000, tensors=2, dtype="bfloat16", state_dtype="uint8", stochastic=True)
    lists, hyper = operands(spec)
    assert lists.spec(stochastic=True) == spec
    launch = stepped(lists, hyper)
    rows = launch["addresses"].reshape(9, -1)
    assert rows[7].tolist() == [s.data_ptr() for s in lists.exp_avg_scales]
    assert rows[8].tolist() == [s.data_ptr() for s in lists.exp_avg_sq_scales]
    assert launch["STATE"] == tl.uint8 and launch["STOCHASTIC"] and launch["quantiles"].shape == (512,)
    assert all(c.block * c.pieces % 256 == 0 for c in triton.configs(spec))  # no block of 8 bits is cut


def test_torchs_default_device_does_not_matter() -> None:
    lists = make(torch.float32, ((3,), (4,)), steps=(4.0, 1.0))
    lists.__dict__["description"] = replace(lists.description, steps_on_device=False)
    with launches() as seen, torch.no_grad(), torch.device("meta"):
        triton.run(triton.configs(lists.spec())[0], lists.spec(), lists, HYPER)
    assert all(t.device.type == "cpu" for t in seen[0].values() if isinstance(t, Tensor))


def on_meta(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    params = [torch.empty(s, dtype=dtype, device="meta", requires_grad=True) for s in shapes]
    for p in params:
        p.grad = torch.empty_like(p)
    return params


@pytest.mark.parametrize("kind, flags", [(Adam, (True, False)), (AdamW, (False, True))])
def test_a_step_asks_the_device_nothing(kind: type, flags: tuple[bool, bool]) -> None:
    """Tensors on "meta" have no values to ask for: `item` raises."""
    params = [*on_meta(((7,), (3, 4))), *on_meta(((9,),), torch.bfloat16)]
    lr = torch.empty((), device="meta")
    optimizer = kind(params, weight_decay=0.1, max_grad_norm=1.0, ema_decay=0.9, target="triton")
    for group in optimizer.param_groups:
        group.update(lr=lr, capturable=True, fused=True)  # as on a real device, which torch's constructor would ask
    optimizer.grad_scale, optimizer.found_inf = (torch.empty((), device="meta") for _ in range(2))
    for p in params:
        optimizer.state[p]["step"] = torch.empty((), device="meta")
        for key in ("exp_avg", "exp_avg_sq"):
            optimizer.state[p][key] = torch.empty_like(p)
    with launches() as seen:
        optimizer.step()
    assert [launch["kernel"] for launch in seen] == ["count", "step"]
    count, step = seen
    assert count["lr"] is lr and count["LR_ON_DEVICE"] and step["FACTOR_ON_DEVICE"]
    assert step["grad_scale"] is optimizer.grad_scale and step["found_inf"] is optimizer.found_inf
    assert (step["COUPLED"], count["weight_decay"] != 0) == flags


def test_a_step_in_8_bits_asks_the_device_nothing() -> None:
    params = on_meta(((7,), (3, 400)), torch.bfloat16)
    optimizer = Adam(params, state_bits=8, stochastic_rounding=True, target="triton")
    for group in optimizer.param_groups:
        group.update(capturable=True)
    with launches() as seen:
        optimizer.step()
        optimizer.step()
    assert [launch["kernel"] for launch in seen] == ["count", "step"] * 2
    assert seen[1]["numbers"] is not None and seen[1]["STOCHASTIC"]


def test_a_rerouted_step_elsewhere_is_not_even_read_where_no_table_knows_the_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACCELOPS_CACHE", str(tmp_path))
    forget()
    taken: list[Any] = []
    monkeypatch.setattr(aten, "functional", lambda *lists, **options: taken.append(lists[0]))
    params = on_meta(((7,),))
    lists = [params, [p.grad for p in params], *([torch.empty_like(p) for p in params] for _ in range(2)), []]
    options = {
        "amsgrad": False,
        "beta1": 0.9,
        "beta2": 0.99,
        "lr": 0.1,
        "weight_decay": 0,
        "eps": 1e-8,
        "maximize": False,
    }
    with torch.no_grad(), monkeypatch.context() as unreadable:
        unreadable.setattr("accelops.kernels.adam.lists.describe", None)
        adam(*lists, [torch.tensor(1.0)], **options)
    assert taken == [params]
    with torch.no_grad(), observed() as specs:  # but accelops.tune wants to know
        adam(*lists, [torch.tensor(1.0)], **options)
    assert [spec.device for spec in specs] == ["meta"]
    table = tuned.path("adam", "meta", "tuned")
    table.parent.mkdir(parents=True)
    table.write_text("{}")
    forget()
    with torch.no_grad(), launches() as seen, use("triton"):
        adam(*lists, [torch.tensor(1.0)], **options)
    assert [launch["kernel"] for launch in seen] == ["step"] and len(taken) == 2
    assert dispatch._may_be_ours(params)
