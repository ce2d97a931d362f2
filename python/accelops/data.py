"""Real images for training, in memory, with augmentation by whole batches.

`digits`: scikit-learn's bundled 1797 handwritten digits (8x8 grey, from the UCI repository), brought to 3x32x32 by repeating
pixels and channels. `cifar10`: the binary version of CIFAR-10 (Krizhevsky 2009) from a local folder; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
CIFAR_TEST = "test_batch.bin"
CIFAR_RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes
DIGITS_TEST = 450


@dataclass(frozen=True)
class Images:
    """Shape: images (N, 3, 32, 32) float32, standardised; labels (N,) int64 from 0 to 9. `flip`: a mirrored image is still
    of its class. `shift`: pixels that an image may be moved by."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    flip: bool
    shift: int


def load(name: str, root: Path | None = None) -> Images:
    """`digits`, or `cifar10` from the folder `root`.

    Raises ValueError for another name or a missing root, FileNotFoundError and ValueError for files that are not there or
    are not CIFAR-10's, ModuleNotFoundError without scikit-learn.
    """
    if name == "digits":
        return _digits()
    if name != "cifar10":
        raise ValueError(f"data={name!r} is unknown; choose digits or cifar10")
    if root is None:
        raise ValueError(f"data='cifar10' needs a root: the folder that holds {CIFAR_FOLDER}")
    return _cifar10(root)


def _digits() -> Images:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the digits come with scikit-learn: pip install 'accelops[demo]'") from error
    bunch = load_digits()
    images = torch.from_numpy(np.kron(bunch.images, np.ones((4, 4)))).float().unsqueeze(1).repeat(1, 3, 1, 1)
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    return _standardised(
        "digits",
        (images[DIGITS_TEST:], labels[DIGITS_TEST:]),
        (images[:DIGITS_TEST], labels[:DIGITS_TEST]),
        flip=False,
        shift=2,
    )


def _cifar10(root: Path) -> Images:
    folder = root if (root / CIFAR_TEST).exists() else root / CIFAR_FOLDER
    missing = [name for name in (*CIFAR_TRAIN, CIFAR_TEST) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"root={str(root)!r}: expected the binary version of CIFAR-10, {CIFAR_FOLDER}/ with "
            f"{CIFAR_TRAIN[0]} to {CIFAR_TRAIN[-1]} and {CIFAR_TEST}; missing: {', '.join(missing)}. "
            "Get cifar-10-binary.tar.gz from the CIFAR-10 page and unpack it there"
        )
    parts = [_cifar_file(folder / name) for name in CIFAR_TRAIN]
    train = (torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]))
    return _standardised("cifar10", train, _cifar_file(folder / CIFAR_TEST), flip=True, shift=4)


def _cifar_file(path: Path) -> tuple[Tensor, Tensor]:
    content = np.fromfile(path, np.uint8)
    if content.size == 0 or content.size % CIFAR_RECORD or content[::CIFAR_RECORD].max() > 9:
        raise ValueError(f"{path}: expected records of {CIFAR_RECORD} bytes, a label from 0 to 9 and 3x32x32 pixels")
    records = torch.from_numpy(content.reshape(-1, CIFAR_RECORD))
    return records[:, 1:].reshape(-1, 3, 32, 32).float(), records[:, 0].long()


def _standardised(
    name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], flip: bool, shift: int
) -> Images:
    """Mean 0 and deviation 1 in each channel, by the training images."""
    deviation, mean = torch.std_mean(train[0], dim=(0, 2, 3), keepdim=True)
    (images, labels), (test_images, test_labels) = train, test
    return Images(
        name, ((images - mean) / deviation, labels), ((test_images - mean) / deviation, test_labels), flip, shift
    )


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """The training images, each time shifted and, where that keeps the class, mirrored at random.

    A DataLoader asks for a whole batch (`__getitems__`): one gather instead of a Python loop over images.
    """

    def __init__(self, images: Images, seed: int) -> None:
        pixels, self.labels = images.train
        self.shift, self.flip, self.size = images.shift, images.flip, pixels.shape[-1]
        self.pixels = torch.nn.functional.pad(pixels, (self.shift,) * 4, mode="replicate")
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels, labels = self.__getitems__([index])
        return pixels[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.tensor(indices)
        n = len(chosen)
        place = torch.arange(self.size)
        offsets = torch.randint(2 * self.shift + 1, (2, n, 1), generator=self.generator)
        rows, columns = offsets[0] + place, offsets[1] + place
        if self.flip:
            mirrored = torch.rand((n, 1), generator=self.generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        channels = torch.arange(self.pixels.shape[1])
        pixels = self.pixels[chosen[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]  # fmt: skip
        return pixels, self.labels[chosen]


def batches(images: Images, batch_size: int, seed: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """One epoch of augmented training batches; the same `seed` gives the same batches."""
    return DataLoader(
        Augmented(images, seed),
        batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=lambda batch: batch,
        generator=torch.Generator().manual_seed(seed),
    )
