"""Every implementation of Adam is judged with rounding as it is on its device."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _rounding(interpreter_rounds_to_bf16: None) -> None:
    """All tests: which target serves is a parameter of many."""
