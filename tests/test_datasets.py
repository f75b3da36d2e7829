"""Sources: sizes, formats, and that no test image is in W."""

import hashlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits

from baldvae_pl.datasets import MNIST, Source, digits
from baldvae_pl.settings import SettingError


@pytest.fixture(scope="module")
def digits_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return digits(tmp_path_factory.mktemp("data"))


def test_digits_are_those_of_scikit_learn_each_in_one_part(digits_source: Source) -> None:
    train, test, classes = digits_source
    images, labels = load_digits(return_X_y=True)
    assert train.images.shape == (1297, 1, 8, 8)
    assert test.images.shape == (500, 1, 8, 8)
    assert classes == list("0123456789")
    for part in (train, test):
        assert (part.images.dtype, part.labels.dtype) == (torch.uint8, torch.int64)
        assert (part.images.min(), part.images.max()) == (0, 255)

    known = {bytes(np.uint8(image)): label for image, label in zip(images, labels, strict=True)}
    assert len(known) == 1797, "no two images are alike, so that pixels name an image"
    found = {}
    for part in (train, test):
        grey_levels = (part.images.flatten(1) * (16 / 255)).round().to(torch.uint8).numpy()
        found |= {bytes(g): y for g, y in zip(grey_levels, part.labels.tolist(), strict=True)}
    assert found == known


def test_digits_grey_levels_are_spread_over_8_bits(digits_source: Source) -> None:
    expected = [round(level * 255 / 16) for level in range(17)]
    assert digits_source.train.images.unique().tolist() == expected


def test_digits_split_is_stratified_and_the_same_for_every_seed(digits_source: Source) -> None:
    train, test, _ = digits_source
    share = test.labels.bincount() / (test.labels.bincount() + train.labels.bincount())
    assert (share - 500 / 1797).abs().max() < 1 / 174
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    again = digits(Path("elsewhere"))
    assert torch.equal(again.train.images, train.images)
    assert torch.equal(again.test.labels, test.labels)
    sha = hashlib.sha256(train.images.numpy().tobytes()).hexdigest()
    assert sha == "3f5e02c83122b9fccebf4cdcbeebea6c620960fa2bc1486c6ac486b04b1eae40"


def test_digits_net_normalises_by_the_moments_of_digits(digits_source: Source) -> None:
    pixels = digits_source.train.images / 255
    assert pixels.mean().item() == pytest.approx(0.305, abs=1e-3)
    assert pixels.std().item() == pytest.approx(0.376, abs=1e-3)


def test_mnist(real_data: Path) -> None:
    train, test, classes = MNIST(real_data)
    assert train.images.shape == (60_000, 1, 28, 28)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert classes == list("0123456789")
    for part in (train, test):
        assert (part.images.dtype, part.labels.dtype) == (torch.uint8, torch.int64)
        assert (part.images.min(), part.images.max()) == (0, 255)
    of_each = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.labels.bincount().tolist() == of_each
    of_each = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test.labels.bincount().tolist() == of_each
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pixels = train.images / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert pixels.std().item() == pytest.approx(0.3081, abs=1e-4)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried a mirror"),
        URLError("no network"),
        TimeoutError(),
    ],
    ids=["torchvision", "network", "without message"],
)
def test_mnist_that_cannot_be_had_says_what_to_do(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(self: torchvision.datasets.MNIST) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    with pytest.raises(SettingError) as caught:
        MNIST(tmp_path)
    message = str(caught.value)
    for part in ("train", "t10k"):
        assert f"{part}-images-idx3-ubyte" in message
        assert f"{part}-labels-idx1-ubyte" in message
    assert str(tmp_path / "MNIST" / "raw") in message
    assert "--data.root" in message
    assert "digits.yaml" in message
    assert (str(error).splitlines() or [""])[0] in message


def test_mnist_files_that_are_cut_short_are_no_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: None)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (60_000, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + bytes(1000))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(SettingError, match="no readable MNIST"):
        MNIST(tmp_path)
