"""Named convolution problems that tests, benchmarks and tuning share: each is a forward problem without dtype or format.

They are small on purpose, and between them cover dimensions, strides, dilations, paddings, groups and odd or empty sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelops.kernels.conv.spec import ConvSpec


@dataclass(frozen=True)
class Case:
    """`channels` is (C, K); `kernel` and the parameters after it have one entry per spatial dimension; those left empty
    are torch's defaults."""

    name: str
    batch: int
    channels: tuple[int, int]
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    def spec(
        self,
        direction: str = "fprop",
        dtype: str = "float32",
        memory_format: str = "contiguous",
        bias: bool = False,
        activation: str = "none",
    ) -> ConvSpec:
        n = len(self.size)
        c, k = self.channels
        weight = (c, k // self.groups, *self.kernel) if self.transposed else (k, c // self.groups, *self.kernel)
        return ConvSpec(
            direction=direction,
            input=(self.batch, c, *self.size),
            weight=weight,
            stride=self.stride or (1,) * n,
            padding=self.padding or (0,) * n,
            dilation=self.dilation or (1,) * n,
            transposed=self.transposed,
            output_padding=(self.output_padding or (0,) * n) if self.transposed else (),
            groups=self.groups,
            bias=bias,
            activation=activation,
            dtype=dtype,
            memory_format=memory_format,
        )


PLAIN = (
    Case("1d", 2, (5, 7), (19,), (3,), padding=(1,)),
    Case("1d strided dilated", 3, (4, 6), (33,), (5,), (3,), (4,), (2,), groups=2),
    Case("1d depthwise", 2, (9, 9), (41,), (7,), padding=(3,), groups=9),
    Case("2d", 2, (6, 10), (9, 11), (3, 3), padding=(1, 1)),
    Case("2d pointwise", 2, (17, 19), (7, 9), (1, 1)),
    Case("2d pointwise strided", 2, (8, 5), (9, 7), (1, 1), (2, 2)),
    Case("2d strided", 2, (5, 8), (13, 10), (3, 5), (2, 3), (1, 2)),
    Case("2d dilated", 1, (3, 4), (15, 17), (3, 3), (1, 1), (2, 3), (2, 3)),
    Case("2d even kernel", 1, (3, 5), (8, 9), (4, 2), (2, 1), (1, 0)),
    Case("2d grouped", 2, (12, 18), (9, 8), (3, 3), padding=(1, 1), groups=3),
    Case("2d grouped strided", 2, (8, 12), (11, 9), (3, 3), (2, 2), (1, 1), groups=4),
    Case("2d depthwise", 2, (35, 35), (12, 13), (3, 3), padding=(1, 1), groups=35),
    Case("2d depthwise strided", 1, (16, 16), (15, 14), (5, 5), (2, 2), (2, 2), groups=16),
    Case("2d depthwise large kernel", 1, (17, 17), (20, 19), (7, 7), padding=(3, 3), groups=17),
    Case("2d channel multiplier", 2, (6, 18), (9, 7), (3, 3), padding=(1, 1), groups=6),
    Case("2d kernel larger than the input", 1, (3, 4), (2, 3), (5, 5), padding=(2, 3)),
    Case("2d padding beyond the kernel", 1, (2, 3), (4, 5), (3, 3), padding=(4, 5)),
    Case("2d single pixel", 2, (4, 6), (1, 1), (3, 3), padding=(1, 1)),
    Case("2d one of everything", 1, (1, 1), (1, 1), (1, 1)),
    Case("2d channels of whole 16 bytes", 2, (16, 40), (6, 7), (3, 3), padding=(1, 1)),
    Case("2d one row", 2, (5, 3), (1, 29), (1, 4), (1, 2), (0, 2)),
    Case("2d stride beyond the kernel", 1, (4, 4), (11, 13), (2, 2), (4, 5), groups=4),
    Case("3d", 1, (4, 6), (5, 6, 7), (3, 3, 3), padding=(1, 1, 1)),
    Case("3d strided grouped", 2, (6, 4), (7, 5, 6), (2, 3, 1), (2, 1, 3), (1, 0, 0), (1, 2, 1), groups=2),
    Case("3d depthwise", 1, (10, 10), (5, 7, 6), (3, 3, 3), padding=(1, 1, 1), groups=10),
    Case("3d pointwise", 1, (9, 11), (3, 4, 5), (1, 1, 1)),
)
TRANSPOSED = (
    Case("1d transposed", 2, (4, 6), (11,), (4,), (2,), (1,), transposed=True),
    Case("2d transposed", 2, (6, 8), (7, 5), (3, 3), (2, 2), (1, 1), transposed=True, output_padding=(1, 1)),
    Case("2d transposed grouped dilated", 1, (6, 9), (6, 7), (3, 2), (1, 3), (2, 1), (2, 2), 3, True, (0, 2)),
    Case("2d transposed depthwise", 2, (18, 18), (6, 7), (3, 3), (2, 2), (1, 1), groups=18, transposed=True),
    Case(
        "3d transposed channels of whole 16 bytes", 1, (8, 16), (2, 5, 3), (1, 3, 2), (), (0, 2, 1), (1, 2, 1), 1, True
    ),
    Case("3d transposed", 1, (4, 3), (4, 3, 5), (2, 3, 3), (2, 1, 2), (0, 1, 1), transposed=True),
)
EMPTY = (
    Case("1d empty batch", 0, (3, 4), (9,), (3,)),
    Case("2d empty batch", 0, (4, 6), (7, 8), (3, 3), padding=(1, 1)),
    Case("2d empty batch depthwise", 0, (8, 8), (7, 8), (3, 3), padding=(1, 1), groups=8),
    Case("2d empty batch grouped", 0, (8, 12), (7, 8), (3, 3), padding=(1, 1), groups=4),
    Case("2d empty batch transposed", 0, (4, 6), (5, 5), (3, 3), (2, 2), transposed=True),
    Case("3d empty batch", 0, (2, 3), (4, 5, 6), (2, 2, 2)),
)
CASES = PLAIN + TRANSPOSED + EMPTY
