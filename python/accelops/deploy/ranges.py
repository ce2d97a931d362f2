"""The ranges of activations, observed while calibration data passes through the model, and the scales that follow.

Symmetric and per tensor: value = scale * integer, integers from -128 to 127, so that the clip at which integers saturate is
127 * scale. Torch's own observers are not used: torch.ao.quantization announces its removal, and its successor is a package
of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from .graph import Network

LARGEST = 127
BINS = 2048
CANDIDATES = 100  # clips that "mse" tries, evenly up to the largest magnitude


class Histogram:
    """Of magnitudes. The largest must be known before the first value is counted."""

    def __init__(self, largest: float) -> None:
        self.largest = largest
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        magnitudes = values.detach().abs().float().flatten()
        self.counts += torch.histc(magnitudes, BINS, 0.0, self.largest).double()

    def clip(self, how: str | float) -> float:
        """ "max"; "mse", the clip with the least mean square error; or a percentile of the magnitudes."""
        if how == "max":
            return self.largest
        if how == "mse":
            return self._least_error()
        share = self.counts.cumsum(0) / self.counts.sum()
        bin = int(torch.searchsorted(share, float(how) / 100))
        return min(bin + 1, BINS) * self.largest / BINS

    def _least_error(self) -> float:
        centres = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (self.largest / BINS)
        clips = torch.arange(1, CANDIDATES + 1, dtype=torch.float64) * (self.largest / CANDIDATES)
        scales = (clips / LARGEST).unsqueeze(1)
        quantised = (centres / scales).round().clamp(max=LARGEST) * scales
        errors = ((quantised - centres) ** 2 * self.counts).sum(1)
        return float(clips[errors.argmin()])


def checked_clip(how: str | float) -> str | float:
    """Raises ValueError for what is no way to choose a clip."""
    if how in ("max", "mse") or (isinstance(how, int | float) and 0 < how <= 100):
        return how
    raise ValueError(f"clip={how!r} is unknown; choose 'max', 'mse' or a percentile such as 99.99")


def scales(
    network: Network, batches: list[tuple[Any, ...]], wanted: Iterable[Node], how: str | float
) -> dict[Node, float]:
    """The scale of each node of `wanted`, from the model's values in fp32 over `batches` of flat inputs: their largest
    magnitudes in a first pass, histograms up to these in a second. Raises ValueError where a value is not finite."""
    wanted = frozenset(wanted)
    largest = dict.fromkeys(wanted, 0.0)

    def widen(node: Node, value: Any) -> None:
        if node in wanted and value.numel():
            most = float(value.abs().max())
            if not most < float("inf"):
                raise ValueError(f"calibration: the values of {node.name} are not finite")
            largest[node] = max(largest[node], most)

    for batch in batches:
        network.run(*batch, watch=widen)
    histograms = {node: Histogram(most) for node, most in largest.items() if most > 0}

    def count(node: Node, value: Any) -> None:
        if node in histograms:
            histograms[node].add(value)

    if how != "max":
        for batch in batches:
            network.run(*batch, watch=count)
    # Where calibration saw nothing but zeros any scale is as good.
    return {node: histograms[node].clip(how) / LARGEST if node in histograms else 1 / LARGEST for node in wanted}
