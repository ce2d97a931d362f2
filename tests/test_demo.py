"""The demo's images, its judge, and the whole of it in small."""

from __future__ import annotations

import io
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from accelops import agreement, data, demo
from accelops.agreement import Script


@pytest.fixture(scope="module")
def digits() -> data.Images:
    return data.load("digits")


def test_digits_are_real_images_split_without_overlap(digits):
    (train, train_labels), (test, test_labels) = digits.train, digits.test
    assert train.shape[1:] == test.shape[1:] == (3, 32, 32) and len(train) + len(test) == 1797
    assert set(train_labels.tolist()) == set(test_labels.tolist()) == set(range(10))
    torch.testing.assert_close(train.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.std(), torch.tensor(1.0), atol=1e-3, rtol=0)


def test_an_epoch_is_repeated_by_its_seed_and_no_other(digits):
    first, again, other = (next(iter(data.batches(digits, 16, seed))) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("flip", [False, True])
def test_augmented_images_are_shifted_and_mirrored_originals(flip):
    pixels = torch.arange(2 * 3 * 32 * 32, dtype=torch.float32).reshape(2, 3, 32, 32)
    images = data.Images("counted", (pixels, torch.tensor([0, 1])), (pixels, torch.tensor([0, 1])), flip, shift=4)
    dataset = data.Augmented(images, seed=0)
    padded = torch.nn.functional.pad(pixels, (4,) * 4, mode="replicate")
    crops = [padded[:, :, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    mirrored = 0
    for _ in range(20):
        batch, labels = dataset.__getitems__([1, 0])
        assert labels.tolist() == [1, 0]
        for image, label in zip(batch, labels, strict=True):
            plain = any(torch.equal(image, crop[label]) for crop in crops)
            mirror = any(torch.equal(image, crop[label].flip(-1)) for crop in crops)
            assert plain != mirror
            mirrored += mirror
    assert (mirrored > 0) == flip


def write_cifar(folder, records=4):
    folder.mkdir()
    generator = np.random.default_rng(0)
    written = {}
    for name in (*data.CIFAR_TRAIN, data.CIFAR_TEST):
        pixels = generator.integers(0, 256, (records, 3 * 32 * 32), np.uint8)
        labels = generator.integers(0, 10, (records, 1), np.uint8)
        np.concatenate([labels, pixels], 1).tofile(folder / name)
        written[name] = (pixels, labels)
    return written


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_is_read_from_the_binary_files(tmp_path, inside):
    folder = tmp_path / data.CIFAR_FOLDER
    written = write_cifar(folder)
    images = data.load("cifar10", folder if inside else tmp_path)
    pixels, labels = written["test_batch.bin"]
    assert images.train[0].shape == (20, 3, 32, 32) and images.flip
    assert images.test[1].tolist() == labels[:, 0].tolist()
    expected = torch.from_numpy(pixels.reshape(4, 3, 32, 32)).double()
    got = images.test[0].double()
    for channel in range(3):  # standardised: the same up to one scale and offset per channel
        pair = torch.stack([expected[:, channel].flatten(), got[:, channel].flatten()])
        assert torch.corrcoef(pair)[0, 1] > 1 - 1e-9


def test_a_folder_without_cifar10_is_told_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-bin/ with data_batch_1.bin to data_batch_5.bin"):
        data.load("cifar10", tmp_path)
    with pytest.raises(ValueError, match="needs a root"):
        data.load("cifar10")
    with pytest.raises(ValueError, match="choose digits or cifar10"):
        data.load("mnist")
    write_cifar(tmp_path / data.CIFAR_FOLDER)
    (tmp_path / data.CIFAR_FOLDER / "data_batch_3.bin").write_bytes(b"\x63" * 5000)
    with pytest.raises(ValueError, match=r"data_batch_3.bin: expected records of 3073 bytes"):
        data.load("cifar10", tmp_path)


PLAIN = Script(lambda model: model, {}, torch.contiguous_format, nullcontext)
BEST = Script(
    lambda model: model.to(memory_format=torch.channels_last), {"fused": True}, torch.channels_last, nullcontext
)


def small() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10))
    return model, [(torch.randn(16, 3, 8, 8), torch.randint(0, 10, (16,))) for _ in range(4)]


def test_torchs_own_two_scripts_agree():
    model, batches = small()
    found = agreement.check(model, batches, 1e-2, BEST, (PLAIN, PLAIN))
    assert found.agree and found.steps == 4 and set(found.worst) == {"loss", "gradients", "update"}
    assert next(model.parameters()).dtype == torch.float32


class Scaled(torch.autograd.Function):
    """Identity, but for `forward` and `backward` a little wrong."""

    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.factor = backward
        return x * forward

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None, None


class Wrong(nn.Sequential):
    def __init__(self, model, forward, backward):
        super().__init__(*model)
        self.factors = forward, backward

    def forward(self, x):
        return Scaled.apply(super().forward(x), *self.factors)


@pytest.mark.parametrize(
    ("kind", "forward", "backward"),
    [("loss", 1 + 1e-5, 1.0), ("gradients", 1.0, 1 + 1e-5), ("loss", float("nan"), 1.0)],
)
def test_a_wrong_kernel_breaks_the_contract(kind, forward, backward):
    model, batches = small()
    script = Script(lambda plain: Wrong(plain, forward, backward), {}, torch.contiguous_format, nullcontext)
    found = agreement.check(model, batches, 1e-2, script, (PLAIN, BEST))
    assert not found.agree and not found.worst[kind].share <= 1


def test_a_wrong_adam_breaks_the_contract():
    model, batches = small()
    script = Script(lambda plain: plain, {"amsgrad": True}, torch.contiguous_format, nullcontext)
    found = agreement.check(model, batches, 1e-2, script, (PLAIN, BEST))
    assert not found.agree and found.worst["update"].share > 1 and found.worst["gradients"].share <= 1


def test_the_demo_in_small_agrees_and_reports(digits):
    few = data.Images("digits", tuple(t[:64] for t in digits.train), tuple(t[:32] for t in digits.test), False, 2)
    options = demo.Options(epochs=2, batch_size=16, checked_steps=2)
    seen = []
    outcome = demo.run(options, few, lambda name, total, loss: seen.append((name, total, loss is None)))
    assert seen.count(("check", 2, True)) == 2 and seen.count(("accelops", 8, False)) == 8
    assert outcome.agreement.agree
    told = outcome.to_dict()
    assert list(told)[-3:] == ["losses_agree", "speedup", "speedup_vs_best"]
    assert {line["op"] for line in told["explain"]} == {"conv", "adam"}
    assert all(len(script["losses"]) == 8 for script in told["scripts"].values())
    console = Console(width=160, file=io.StringIO())
    demo.show(outcome, console)
    assert "x as fast as torch at its best" in console.file.getvalue()


def test_a_speedup_leaves_out_the_first_epoch_and_counts_all_phases():
    def training(*epochs):
        seconds = [dict(zip(demo.PHASES, epoch, strict=True)) for epoch in epochs]
        return demo.Training(PLAIN, None, None, None, [0.0], seconds)

    trainings = {"torch": training((9, 9, 9, 9), (1, 2, 3, 4)), "accelops": training((1, 1, 1, 1), (1, 1, 1, 2))}
    outcome = demo.Outcome(demo.Options(), trainings, None, None, True)
    assert outcome.speedup("torch") == 2.0


def test_a_batch_larger_than_the_data_is_refused(digits):
    with pytest.raises(ValueError, match=r"batch_size=5000 exceeds the 1347 training images"):
        demo.check_batch(demo.Options(batch_size=5000), digits)
