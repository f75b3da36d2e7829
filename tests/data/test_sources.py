"""Sources: sizes, formats, and that no test image is in W."""

import hashlib
import pickle
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from conftest import write_fashion_mnist
from PIL import Image
from sklearn.datasets import load_digits

from baldvae_pl.data.sources import (
    CIFAR10,
    MNIST,
    FashionMNIST,
    ImageFolder,
    Images,
    Source,
    check_source,
    choose,
    digits,
    repeat,
)
from baldvae_pl.errors import SettingError


@pytest.fixture(scope="module")
def digits_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return digits(tmp_path_factory.mktemp("data"))


def test_digits_are_those_of_scikit_learn_each_in_one_part(digits_source: Source) -> None:
    train, test, classes, *_ = digits_source
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
    train, test, *_ = digits_source
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
    train, test, classes, *_ = MNIST(real_data)
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


def test_fashion_mnist_reads_files_in_its_format(tmp_path: Path) -> None:
    written = write_fashion_mnist(tmp_path)
    train, test, classes, *_ = FashionMNIST(tmp_path)
    for images, part in ((train, "train"), (test, "t10k")):
        assert torch.equal(images.images[:, 0], torch.tensor(written[f"{part}-images-idx3-ubyte"]))
        assert images.labels.tolist() == written[f"{part}-labels-idx1-ubyte"].tolist()
    assert classes[0] == "T-shirt/top"
    assert classes[9] == "Ankle boot"
    assert len(classes) == 10


def test_cifar10_reads_files_in_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)  # MD5 sums
    names = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    chance, rows = np.random.default_rng(0), []
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        rows.append(chance.integers(0, 256, (4, 3072), np.uint8))
        batch = {"data": rows[-1], "labels": [number, 1, 2, 3]}
        (folder / name).write_bytes(pickle.dumps(batch))
    train, test, classes, *_ = CIFAR10(tmp_path)
    assert classes == names
    # A row holds the red plane, the green one and the blue one.
    assert torch.equal(train.images, torch.tensor(np.stack(rows[:5])).view(20, 3, 32, 32))
    assert torch.equal(test.images, torch.tensor(rows[5]).view(4, 3, 32, 32))
    assert train.images.is_contiguous()
    assert train.labels.tolist() == [x for k in range(5) for x in (k, 1, 2, 3)]
    assert test.labels.tolist() == [5, 1, 2, 3]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (FashionMNIST, "no readable FashionMNIST .* into .*FashionMNIST/raw"),
        (CIFAR10, "no readable CIFAR10 .* folder cifar-10-batches-py .* into "),
    ],
)
def test_what_cannot_be_had_is_named(
    source: type, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(self: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", download)
    with pytest.raises(SettingError, match=words):
        source(tmp_path)


# Class-per-folder trees


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, two images each to train with and one to test."""
    for number, name in enumerate(
        [
            "train/dog/1.png",
            "train/dog/x/2.png",
            "train/cat/9.png",
            "train/cat/8.png",
            "test/dog/5.png",
            "test/cat/5.png",
        ]
    ):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 5), number, np.uint8)).save(path)
    return tmp_path / "pets"


def folder_source(tree: Path, **options: object) -> Source:
    return ImageFolder(tree, 4, 1, cache_folder=str(tree.parent / "cache"), **options)


def test_image_folder_labels_by_folder_and_names_files(tree: Path) -> None:
    source = folder_source(tree)
    check_source(source)
    train, test, classes, files, fingerprint = source
    assert classes == ["cat", "dog"]
    assert files == ["train/cat/8.png", "train/cat/9.png", "train/dog/1.png", "train/dog/x/2.png"]
    assert train.images.shape == (4, 1, 4, 4)
    assert train.images[:, 0, 0, 0].tolist() == [3, 2, 0, 1]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.images[:, 0, 0, 0].tolist() == [5, 4]
    assert test.labels.tolist() == [0, 1]
    assert fingerprint == hashlib.sha256(train.images.numpy().tobytes()).hexdigest()


def test_image_folder_is_colour_of_32_pixels_by_default(tree: Path) -> None:
    source = ImageFolder(tree, cache_folder=str(tree.parent / "cache"))
    assert source.train.images.shape == (4, 3, 32, 32)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda tree: shutil.rmtree(tree / "test"), "there is no folder .*test. ImageFolder needs"),
        (lambda tree: shutil.rmtree(tree), "no folder .*train and no .*test. ImageFolder needs"),
        (lambda tree: shutil.rmtree(tree / "test" / "cat"), "test has no images of cat. Every"),
        (lambda tree: shutil.rmtree(tree / "train" / "dog"), "train has no images of dog. Every"),
        (lambda tree: (tree / "train" / "eel").mkdir(), "train has no images of eel. Every"),
        (lambda tree: shutil.copy(tree / "test/cat/5.png", tree / "train"), "5.png lies in no cl"),
        (lambda tree: (tree / "test" / "cat" / "5.png").write_bytes(b"x"), "1 of 2 images in"),
    ],
)
def test_image_folder_says_what_is_missing_before_it_decodes(
    damage: object, words: str, tree: Path
) -> None:
    damage(tree)
    with pytest.raises(SettingError, match=f"--data.root: .*{words}"):
        folder_source(tree)


def test_a_class_that_loses_all_its_images_is_missing(tree: Path) -> None:
    (tree / "test" / "cat" / "5.png").write_bytes(b"x")
    with pytest.raises(SettingError, match="test has no images of cat"):
        folder_source(tree, skip_unreadable=True)


def test_one_class_is_refused(tree: Path) -> None:
    for part in ("train", "test"):
        shutil.rmtree(tree / part / "dog")
    with pytest.raises(SettingError, match=r"the classes .'cat'., not two or more"):
        check_source(folder_source(tree))


def test_a_source_that_forgets_names_of_files_is_refused() -> None:
    images = Images(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0]))
    check_source(Source(images, images, ["a", "b"], ["x", "y", "z"]))
    with pytest.raises(SettingError, match="2 names of files for 3 images"):
        check_source(Source(images, images, ["a", "b"], ["x", "y"]))


def test_a_subset_is_the_same_images_every_time_with_their_labels_and_files(
    digits_source: Source,
) -> None:
    named = digits_source._replace(files=[f"{i}.png" for i in range(1297)], fingerprint="x")
    chosen, again = (choose(named, 100) for _ in range(2))
    assert torch.equal(chosen.train.images, again.train.images)
    numbers = [int(file.removesuffix(".png")) for file in chosen.files]
    assert numbers == sorted(set(numbers))
    assert torch.equal(chosen.train.images, digits_source.train.images[numbers])
    assert torch.equal(chosen.train.labels, digits_source.train.labels[numbers])
    assert chosen.test is named.test
    assert chosen.fingerprint is None  # they are other images now
    assert abs(np.mean(numbers) - 648) < 5 * 1297 / 12**0.5 / 10
    assert choose(named, None) is named
    with pytest.raises(SettingError, match=r"--data\.subset: 1298 is more than the 1297"):
        choose(named, 1298)


def test_repeated_images_differ_by_noise_of_a_tenth_of_the_spread(digits_source: Source) -> None:
    grey = Images(torch.full((5000, 1, 4, 4), 128, dtype=torch.uint8), torch.arange(5000) % 10)
    source = digits_source._replace(train=grey, files=[str(i) for i in range(5000)])
    four = repeat(source, 4)
    assert four.train.images.shape == (20_000, 1, 4, 4)
    assert torch.equal(four.train.labels, grey.labels.repeat(4))
    assert four.files[5001] == "1"
    noise = four.train.images.float() - 128
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(0.1 * 0.3081 * 255, rel=0.02)
    assert not torch.equal(four.train.images[:5000], four.train.images[5000:10_000])
    assert torch.equal(four.train.images, repeat(source, 4).train.images)
    assert repeat(source, 1) is source
    extremes = repeat(digits_source, 2).train.images  # no number runs over
    assert (extremes[1297:].float() - digits_source.train.images.float()).abs().max() < 60
