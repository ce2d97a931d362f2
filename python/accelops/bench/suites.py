"""The problems that benchmarks measure: the convolutions of real networks, layer by layer, and parameter lists.

A suite is a tuple of Cases. The conv suites list each distinct layer of a network once for each direction, with how often
the network has it; a layer that sees the images themselves has no dgrad, as in training. The shapes follow the papers that
are named beside each network and were compared with the public implementations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from accelops.kernels.conv.spec import DIRECTIONS, ConvSpec


@dataclass(frozen=True)
class Case:
    """One problem: a contiguous fp32 `spec`, met `multiplicity` times in one pass through the network."""

    name: str
    spec: ConvSpec
    multiplicity: int


@dataclass(frozen=True)
class Layer:
    """A convolution of `c` to `k` channels on `size` pixels a side, padded as the network pads ("same" by default). One
    number serves all dimensions."""

    c: int
    k: int
    size: int | tuple[int, ...]
    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    groups: int = 1
    ndim: int = 2
    padding: int | None = None
    bias: bool = False
    transposed: bool = False
    first: bool = False

    @property
    def name(self) -> str:
        kind = "transposed" if self.transposed else ""
        if self.groups == self.c > 1:
            kind = "depthwise"
        elif self.groups > 1:
            kind = f"{self.groups} groups"
        channels = f"{self.c}" if self.c == self.k else f"{self.c}->{self.k}"
        kernel = "x".join(map(str, self._each(self.kernel)))
        stride = "" if self.stride == 1 else f"/{_short(self.stride)}"
        return f"{kind} {kernel}{stride} {channels}@{_short(self.size)}".strip()

    def spec(self, batch: int, direction: str) -> ConvSpec:
        kernel = self._each(self.kernel)
        padding = tuple(k // 2 for k in kernel) if self.padding is None else self._each(self.padding)
        shape = (self.c, self.k // self.groups) if self.transposed else (self.k, self.c // self.groups)
        return ConvSpec(
            direction=direction,
            input=(batch, self.c, *self._each(self.size)),
            weight=(*shape, *kernel),
            stride=self._each(self.stride),
            padding=padding,
            dilation=self._each(1),
            transposed=self.transposed,
            output_padding=self._each(0) if self.transposed else (),
            groups=self.groups,
            bias=self.bias and direction != "dgrad",
        )

    def _each(self, value: int | tuple[int, ...]) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else (value,) * self.ndim


def _short(value: int | tuple[int, ...]) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _bottlenecks(groups: int, width_factor: int) -> Iterator[Layer]:
    """He et al. 2015, "Deep residual learning", table 1, with the stride in the 3x3 as everyone trains it today."""
    yield Layer(3, 64, 224, 7, 2, first=True)
    channels, size = 64, 56
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        width = planes * width_factor
        for block in range(blocks):
            stride = 2 if block == 0 and planes > 64 else 1
            yield Layer(channels, width, size, 1)
            yield Layer(width, width, size, 3, stride, groups)
            if block == 0:
                yield Layer(channels, 4 * planes, size, 1, stride)
            size //= stride
            yield Layer(width, 4 * planes, size, 1)
            channels = 4 * planes


def resnet50() -> Iterator[Layer]:
    return _bottlenecks(groups=1, width_factor=1)


def resnext50() -> Iterator[Layer]:
    """Xie et al. 2017, "Aggregated residual transformations", 32x4d."""
    return _bottlenecks(groups=32, width_factor=2)


# Howard et al. 2019, "Searching for MobileNetV3", table 1: kernel, expansion, output, squeeze-and-excite, stride.
_MOBILENET_V3_LARGE = (
    (3, 16, 16, False, 1), (3, 64, 24, False, 2), (3, 72, 24, False, 1), (5, 72, 40, True, 2), (5, 120, 40, True, 1),
    (5, 120, 40, True, 1), (3, 240, 80, False, 2), (3, 200, 80, False, 1), (3, 184, 80, False, 1),
    (3, 184, 80, False, 1), (3, 480, 112, True, 1), (3, 672, 112, True, 1), (5, 672, 160, True, 2),
    (5, 960, 160, True, 1), (5, 960, 160, True, 1),
)  # fmt: skip


def mobilenet_v3() -> Iterator[Layer]:
    yield Layer(3, 16, 224, 3, 2, first=True)
    channels, size = 16, 112
    for kernel, expansion, output, squeeze, stride in _MOBILENET_V3_LARGE:
        if expansion != channels:
            yield Layer(channels, expansion, size, 1)
        yield Layer(expansion, expansion, size, kernel, stride, expansion)
        size //= stride
        if squeeze:
            squeezed = max(8, (expansion // 4 + 4) // 8 * 8)
            yield Layer(expansion, squeezed, 1, 1, bias=True)
            yield Layer(squeezed, expansion, 1, 1, bias=True)
        yield Layer(expansion, output, size, 1)
        channels = output
    yield Layer(160, 960, 7, 1)


def convnext() -> Iterator[Layer]:
    """Liu et al. 2022, "A ConvNet for the 2020s", tiny; its 1x1 layers are linear ones in the code."""
    yield Layer(3, 96, 224, 4, 4, padding=0, bias=True, first=True)
    channels, size = 96, 56
    for width, blocks in ((96, 3), (192, 3), (384, 9), (768, 3)):
        if width != channels:
            yield Layer(channels, width, size, 2, 2, padding=0, bias=True)
            channels, size = width, size // 2
        for _ in range(blocks):
            yield Layer(width, width, size, 7, groups=width, bias=True)


def unet3d() -> Iterator[Layer]:
    """Çiçek et al. 2016, "3D U-Net", figure 2, on patches of 32 voxels a side with "same" padding."""
    yield Layer(1, 32, 32, 3, ndim=3, first=True)
    for c, k, size in ((32, 64, 32), (64, 64, 16), (64, 128, 16), (128, 128, 8), (128, 256, 8), (256, 256, 4), (256, 512, 4)):  # fmt: skip
        yield Layer(c, k, size, 3, ndim=3)
    for below, skip, size in ((512, 256, 8), (256, 128, 16), (128, 64, 32)):
        yield Layer(below, below, size // 2, 2, 2, ndim=3, padding=0, bias=True, transposed=True)
        yield Layer(below + skip, skip, size, 3, ndim=3)
        yield Layer(skip, skip, size, 3, ndim=3)
    yield Layer(64, 3, 32, 1, ndim=3, bias=True)


def x3d() -> Iterator[Layer]:
    """Feichtenhofer 2020, "X3D", table 3 and its M: 16 frames of 224 pixels, 3x3x3 depthwise in every bottleneck,
    squeeze-and-excite in every other one."""
    yield Layer(3, 24, (16, 224, 224), (1, 3, 3), (1, 2, 2), ndim=3, first=True)
    yield Layer(24, 24, (16, 112, 112), (5, 1, 1), groups=24, ndim=3)
    channels, size = 24, 112
    for output, squeezed, blocks in ((24, 8, 3), (48, 8, 5), (96, 16, 11), (192, 32, 7)):
        width = output * 9 // 4
        for block in range(blocks):
            stride = (1, 2, 2) if block == 0 else 1
            if block == 0:
                yield Layer(channels, output, (16, size, size), 1, stride, ndim=3)
            yield Layer(channels, width, (16, size, size), 1, ndim=3)
            yield Layer(width, width, (16, size, size), 3, stride, width, ndim=3)
            size = size // 2 if block == 0 else size
            if block % 2 == 0:
                yield Layer(width, squeezed, 1, 1, ndim=3, bias=True)
                yield Layer(squeezed, width, 1, 1, ndim=3, bias=True)
            yield Layer(width, output, (16, size, size), 1, ndim=3)
            channels = output
    yield Layer(192, 432, (16, 7, 7), 1, ndim=3)


def conformer() -> Iterator[Layer]:
    """Gulati et al. 2020, "Conformer", S, M and L: the convolution module on 16 s of speech (400 frames)."""
    for width, blocks in ((144, 16), (256, 16), (512, 17)):
        for _ in range(blocks):
            yield Layer(width, 2 * width, 400, 1, ndim=1)
            yield Layer(width, width, 400, 31, groups=width, ndim=1)
            yield Layer(width, width, 400, 1, ndim=1)


def cifar() -> Iterator[Layer]:
    """The network of `accelops demo`."""
    yield Layer(3, 64, 32, 3, bias=True, first=True)
    yield Layer(64, 128, 16, 3, bias=True)
    yield Layer(128, 256, 8, 3, bias=True)


NETWORKS: dict[str, tuple[Callable[[], Iterator[Layer]], int]] = {  # and the batch by default
    "resnet50": (resnet50, 8),
    "mobilenet_v3": (mobilenet_v3, 8),
    "convnext": (convnext, 8),
    "resnext50": (resnext50, 8),
    "unet3d": (unet3d, 1),
    "x3d": (x3d, 2),
    "conformer": (conformer, 8),
    "cifar": (cifar, 64),
}


def conv_cases(network: str, batch: int | None = None) -> tuple[Case, ...]:
    """The Cases of one of NETWORKS, fprop, dgrad and wgrad of each distinct layer, in the network's order."""
    layers, usual_batch = NETWORKS[network]
    return tuple(
        Case(layer.name, layer.spec(batch or usual_batch, direction), count)
        for layer, count in Counter(layers()).items()
        for direction in DIRECTIONS
        if not (layer.first and direction == "dgrad")
    )


def channels_last(spec: ConvSpec) -> ConvSpec | None:
    """The same problem in torch's other memory format, None in 1D, where there is none."""
    return None if spec.ndim == 1 else replace(spec, memory_format="channels_last")


def resnet50_parameters() -> tuple[tuple[int, ...], ...]:
    """The 161 parameter shapes of ResNet-50, 25.6 M elements: convolutions, batch norms, the classifier."""
    shapes: list[tuple[int, ...]] = []
    for layer in resnet50():
        shapes += [layer.spec(1, "fprop").weight, (layer.k,), (layer.k,)]
    return (*shapes, (1000, 2048), (1000,))
