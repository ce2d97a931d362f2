"""Small networks as people write them, most with forwards of their own: what accelerate is tried on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """He et al. 2015, with one ReLU for three places, as torchvision has it."""

    def __init__(self, channels: int, wide: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.conv2, self.bn2 = nn.Conv2d(wide, wide, 3, stride, 1, groups=4, bias=False), nn.BatchNorm2d(wide)
        self.conv3, self.bn3 = nn.Conv2d(wide, 4 * wide, 1, bias=False), nn.BatchNorm2d(4 * wide)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(channels, 4 * wide, 1, stride, bias=False), nn.BatchNorm2d(4 * wide))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.layers = nn.Sequential(Bottleneck(8, 8), Bottleneck(32, 16, 2))
        self.fc = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class InvertedResidual(nn.Module):
    """Sandler et al. 2018."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depthwise, self.bn2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide)
        self.project, self.bn3 = nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.act1, self.act2 = nn.SiLU(), nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.expand(x)))
        out = self.act2(self.bn2(self.depthwise(out)))
        return x + self.bn3(self.project(out))


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 8, 3, 2, 1), InvertedResidual(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.stem(x)).mean((2, 3))


class UNet(nn.Module):
    """Ronneberger et al. 2015: one level, with a transposed convolution and a skip."""

    def __init__(self, ndim: int = 2) -> None:
        super().__init__()
        conv, up = getattr(nn, f"Conv{ndim}d"), getattr(nn, f"ConvTranspose{ndim}d")
        norm, pool = getattr(nn, f"BatchNorm{ndim}d"), getattr(nn, f"MaxPool{ndim}d")
        self.down, self.norm1 = conv(3, 8, 3, padding=1), norm(8)
        self.pool, self.deep, self.act = pool(2), conv(8, 16, 3, padding=1), nn.ReLU()
        self.up, self.merge, self.norm2 = up(16, 8, 2, 2), conv(16, 8, 3, padding=1), norm(8)
        self.out = conv(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.act(self.norm1(self.down(x)))
        deep = self.act(self.deep(self.pool(skip)))
        return self.out(self.act(self.norm2(self.merge(torch.cat([skip, self.up(deep)], 1)))))


class UNet3d(UNet):
    def __init__(self) -> None:
        super().__init__(3)


def chain() -> nn.Sequential:
    """The pieces that accelerate knows: ReLU and pool, folding, a nested block, a depthwise convolution."""
    block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.SiLU())
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1), block,
        nn.Conv2d(16, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "chain": chain,
    "ResNet": ResNet,
    "Mobile": Mobile,
    "UNet": UNet,
    "UNet3d": UNet3d,
}


def images(network: str, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *[16] * (3 if network == "UNet3d" else 2))


def lived_in(model: nn.Module) -> nn.Module:
    """With statistics, scales and shifts that are not the ones of a new norm."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low in (
                (module.running_mean, -1),
                (module.weight, 0.5),
                (module.bias, -1),
                (module.running_var, 0.5),
            ):
                tensor.detach().uniform_(low, 2)
    return model
