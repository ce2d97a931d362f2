"""The machine's ceilings, measured in the run that they are used in: copy bandwidth and the peak of matrix products.

A kernel is bounded by bytes / copy bandwidth and by flops / matrix peak (Williams, Waterman, Patterson 2009, "Roofline").
The copy is larger than the caches and counts what it reads and writes. The peak is that of the faster of torch's two matrix
engines, its product and its dense 3x3 convolution: on an AMD processor the fp32 product reaches half of the convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from accelops.kernels.spec import Spec
from accelops.timing import Variant, interleaved

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Size:
    """A copy of `copy` bytes (so many read and so many written), larger than any last-level cache; a product of two square
    matrices, and a 3x3 convolution, large enough to fill the device."""

    copy: int
    matrix: int
    batch: int
    channels: int
    pixels: int


SIZES = {"cpu": Size(1 << 28, 2048, 8, 128, 28), "cuda": Size(1 << 32, 8192, 64, 512, 32)}


@dataclass(frozen=True)
class Ceilings:
    """`copy` in bytes/s; `peak` in flop/s for each dtype."""

    copy: float
    peak: dict[str, float]

    def percent_of_copy(self, spec: Spec, seconds: float) -> float:
        return 100 * spec.bytes / seconds / self.copy

    def percent_of_peak(self, spec: Spec, seconds: float) -> float:
        """Of the dtype's peak; float32's where the dtype was not measured."""
        return 100 * spec.flops / seconds / self.peak.get(getattr(spec, "dtype", "float32"), self.peak["float32"])


def measure(device: str = "cpu", seconds: float = 2.0) -> Ceilings:
    """Both ceilings with torch's current number of threads, interleaved, medians, in about `seconds`."""
    size = SIZES[device]
    source = torch.randn(size.copy // 4, device=device)
    target = torch.empty_like(source)
    variants = {"copy": Variant(lambda: target.copy_(source))}
    for dtype in DTYPES:
        a, b = (torch.randn(size.matrix, size.matrix, device=device).to(getattr(torch, dtype)) for _ in range(2))
        variants[f"{dtype} product"] = Variant(lambda a=a, b=b: a @ b)
        x, w = (t.to(getattr(torch, dtype), memory_format=torch.channels_last) for t in _convolution(size, device))
        variants[f"{dtype} convolution"] = Variant(lambda x=x, w=w: F.conv2d(x, w, padding=1))
    times = {name: median(values) for name, values in interleaved(variants, seconds, device).items()}
    flops = {"product": 2 * size.matrix**3, "convolution": 2 * size.batch * size.pixels**2 * size.channels**2 * 9}
    peak = {dtype: max(count / times[f"{dtype} {engine}"] for engine, count in flops.items()) for dtype in DTYPES}
    return Ceilings(2 * size.copy / times["copy"], peak)


def _convolution(size: Size, device: str) -> tuple[Tensor, Tensor]:
    return (
        torch.randn(size.batch, size.channels, size.pixels, size.pixels, device=device),
        torch.randn(size.channels, size.channels, 3, 3, device=device),
    )
