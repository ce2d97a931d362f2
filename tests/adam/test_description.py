"""Lists of tensors are read alike by native code and by Python, and what is known of lists that are alike is found again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from accelops.kernels.adam import description
from accelops.kernels.adam.description import describe, read
from accelops.kernels.adam.lists import Lists
from accelops.kernels.adam.operands import operands
from accelops.kernels.adam.spec import AdamSpec


def columns(device: str = "cpu") -> list[list[Tensor]]:
    return [[torch.empty(2, 3, device=device), torch.empty(0, 4, device=device)], [], [torch.empty((), device=device)]]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_both_ways_of_reading_find_the_same_addresses(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = columns(device)
    kinds, addresses = read(given)
    monkeypatch.setattr(description, "native", None)
    assert read(given) == (None, addresses)
    assert kinds is not None and addresses[1] == b""
    assert [len(a) for a in addresses] == [16, 0, 8]


def test_kinds_are_all_but_addresses() -> None:
    kinds = read(columns())[0]
    assert read(columns())[0] == kinds
    changed = []
    for change in (
        lambda t: t.half(),
        lambda t: t.t(),
        lambda t: t.as_strided((2, 3), (1, 2)),
        lambda t: t[:, :2],
        lambda t: t[None],
        lambda t: t.to("meta"),
    ):
        given = columns()
        given[0][0] = change(given[0][0])
        changed.append(read(given)[0])
    given = columns()
    given[1] = given[2]
    changed.append(read(given)[0])
    assert len({kinds, *changed}) == 1 + len(changed)


def test_what_only_python_understands_has_no_kinds() -> None:
    class Strange(Tensor):
        pass

    given = columns()
    given[2] = [torch.empty(1).as_subclass(Strange)]
    kinds, addresses = read(given)
    assert kinds is None and len(addresses[2]) == 8
    assert read([[torch.eye(2).to_sparse()]]) == (None, ())


def test_lists_that_are_alike_are_described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "_known", {})
    first, second = (operands(AdamSpec(100, 3), seed)[0] for seed in (1, 2))
    assert first.description is second.description is not None
    other = replace(first, grads=[g.half() for g in first.grads])
    assert "gradient of another dtype" in other.description.why
    assert first.description == describe([getattr(first, f) for f in Lists.__dataclass_fields__])


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "_known", {})
    monkeypatch.setattr(description, "_MOST_KNOWN", 3)
    for n in range(1, 9):
        assert operands(AdamSpec(n))[0].description.numel == n
        assert len(description._known) <= 3
