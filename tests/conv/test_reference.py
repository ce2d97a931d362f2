"""The ground truth obeys the contract, and agrees with a definition that shares nothing with it."""

from __future__ import annotations

import numpy as np
import pytest

from accelops.kernels.conv import reference
from accelops.kernels.conv.operands import operands

from .contract import BY_NAME, NAMES, ConvContract, by_definition, results


class TestReference(ConvContract):
    implementation = reference

    @pytest.mark.parametrize("name", NAMES)
    def test_every_direction_agrees_with_the_definition(self, name: str) -> None:
        """fprop by value; dgrad and wgrad as its adjoints: <G, conv(X, W)> is <dX(G), X> and <dW(G), W>."""
        case = BY_NAME[name]
        fprop, dgrad, wgrad = (case.spec(direction, "float64") for direction in ("fprop", "dgrad", "wgrad"))
        x, w, _ = operands(fprop, self.current_seed)
        g, _, _ = operands(dgrad, self.current_seed + 1)
        expected = by_definition(fprop, x.numpy(), w.numpy())
        np.testing.assert_allclose(results(reference, reference.Config(), fprop, (x, w))[0], expected, 1e-12, 1e-12)
        grad_x = results(reference, reference.Config(), dgrad, (g, w))[0]
        grad_w = results(reference, reference.Config(), wgrad, (g, x))[0]
        inner = float((g.numpy() * expected).sum())
        assert float((grad_x * x).sum()) == pytest.approx(inner, rel=1e-9, abs=1e-9)
        assert float((grad_w * w).sum()) == pytest.approx(inner, rel=1e-9, abs=1e-9)

    def test_it_serves_every_case(self) -> None:
        assert all(not reference.unsupported(case.spec()) for case in BY_NAME.values())
