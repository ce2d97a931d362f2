"""Small models, each with what a graph walk, a packing or a board could get wrong."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from accelops.deploy.graph import export


class Residual(nn.Module):
    """BatchNorms to fold, a residual sum on the host, one result that two layers and the host read, odd channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(20)
        self.main = nn.Conv2d(20, 20, 3, padding=1)
        self.main_norm = nn.BatchNorm2d(20)
        self.side = nn.Conv2d(20, 20, 1)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = torch.relu(self.main_norm(self.main(x)) + self.side(x) + x)
        return self.head(x.mean((2, 3)))


class Mobile(nn.Module):
    """Depthwise behind a dense layer, groups of two channels in and three out, ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.grouped = nn.Conv2d(24, 36, (1, 3), dilation=(1, 2), groups=12)
        self.project = nn.Conv2d(36, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.depthwise(nn.functional.relu6(self.expand(x))))
        return self.project(torch.relu(self.grouped(x)))


class Sequence(nn.Module):
    """1D convolutions, a string of padding that is not the same on both sides, linear maps over more than two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 8, 4, padding="same")
        self.second = nn.Conv1d(8, 8, 3, stride=2)
        self.inner = nn.Linear(8, 18)
        self.outer = nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.outer(torch.relu(self.inner(x.transpose(1, 2))))


class Several(nn.Module):
    """Two inputs, a dictionary out, a layer called twice, a size taken from a layer's result."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(2, 4, 3)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        one, two = self.shared(a), self.shared(b)
        return {"flat": one.view(one.size(0), 36), "sum": torch.relu(one + two)}


SHAPES: dict[type[nn.Module], tuple[tuple[int, ...], ...]] = {
    Residual: ((3, 9, 8),),
    Mobile: ((3, 5, 7),),
    Sequence: ((4, 13),),
    Several: ((2, 5, 5), (2, 5, 5)),
}


def built(kind: type[nn.Module], seed: int = 0, images: int = 2) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A model in eval mode, its BatchNorms with statistics of their own, and inputs."""
    torch.manual_seed(seed)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval(), tuple(torch.randn(images, *shape) for shape in SHAPES[kind])


@cache
def program(kind: type[nn.Module]) -> ExportedProgram:
    """Exporting is what takes time."""
    return export(*built(kind))
