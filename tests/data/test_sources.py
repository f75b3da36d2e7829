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
from helpers import write_fashion_mnist
from PIL import Image
from sklearn.datasets import load_digits

from baldvae_pl.data.images import Images, Source, check_source
from baldvae_pl.data.sources import CIFAR10, MNIST, DataSource, Digits, FashionMNIST, ImageFolder
from baldvae_pl.data.variants import random_subset, repeat_with_noise
from baldvae_pl.errors import SettingError


@pytest.fixture(scope="module")
def digits_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Digits()(tmp_path_factory.mktemp("data"))


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
    again = Digits()(Path("elsewhere"))
    assert torch.equal(again.train.images, train.images)
    assert torch.equal(again.test.labels, test.labels)
    sha = hashlib.sha256(train.images.numpy().tobytes()).hexdigest()
    assert sha == "3f5e02c83122b9fccebf4cdcbeebea6c620960fa2bc1486c6ac486b04b1eae40"


def test_digits_net_normalises_by_the_moments_of_digits(digits_source: Source) -> None:
    pixels = digits_source.train.images / 255
    assert pixels.mean().item() == pytest.approx(0.305, abs=1e-3)
    assert pixels.std().item() == pytest.approx(0.376, abs=1e-3)


def test_mnist(real_data: Path) -> None:
    train, test, classes, *_ = MNIST()(real_data)
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
        MNIST()(tmp_path)
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
        MNIST()(tmp_path)


def test_fashion_mnist_reads_files_in_its_format(tmp_path: Path) -> None:
    written = write_fashion_mnist(tmp_path)
    train, test, classes, *_ = FashionMNIST()(tmp_path)
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
    train, test, classes, *_ = CIFAR10()(tmp_path)
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
    source: type[DataSource], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(self: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", download)
    with pytest.raises(SettingError, match=words):
        source()(tmp_path)


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
    return ImageFolder(4, 1, cache_folder=str(tree.parent / "cache"), **options)(tree)


def test_image_folder_labels_by_folder_and_names_files(tree: Path) -> None:
    source = folder_source(tree)
    check_source(source)
    train, test, classes, files, fingerprint, pictures, labels_file = source
    assert classes == ["cat", "dog"]
    assert files == ["train/cat/8.png", "train/cat/9.png", "train/dog/1.png", "train/dog/x/2.png"]
    assert train.images.shape == (4, 1, 4, 4)
    assert train.images[:, 0, 0, 0].tolist() == [3, 2, 0, 1]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.images[:, 0, 0, 0].tolist() == [5, 4]
    assert test.labels.tolist() == [0, 1]
    assert fingerprint == hashlib.sha256(train.images.numpy().tobytes()).hexdigest()
    assert pictures is labels_file is None


def test_a_class_may_be_written_in_two_forms_of_unicode(tmp_path: Path) -> None:
    one, two = "é", "e\u0301"
    for number, folder in enumerate(
        [f"train/{one}", f"train/{two}", "train/b", f"test/{two}", "test/b"]
    ):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("L", (4, 4), number).save(tmp_path / folder / f"{number}.png")
    source = folder_source(tmp_path)
    assert source.classes == ["b", one]
    assert sorted(source.train.labels.tolist()) == [0, 1, 1]
    assert source.test.labels.tolist() == [0, 1]


def test_image_folder_is_colour_of_32_pixels_by_default(tree: Path) -> None:
    source = ImageFolder(cache_folder=str(tree.parent / "cache"))(tree)
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


# Options


@pytest.mark.parametrize("image_size", [0, -1])
def test_images_have_a_size(image_size: int) -> None:
    with pytest.raises(SettingError, match=r"--data\.source\.image_size: must be at least 1, got"):
        ImageFolder(image_size)


@pytest.mark.parametrize("name", ["subset", "repeats"])
@pytest.mark.parametrize("source", [Digits, MNIST, FashionMNIST, CIFAR10, ImageFolder])
def test_nothing_of_a_data_set_is_no_data_set(source: type[DataSource], name: str) -> None:
    with pytest.raises(SettingError, match=rf"--data\.source\.{name}: must be at least 1, got 0"):
        source(**{name: 0})


def test_a_source_of_ones_own_has_the_same_options(digits_source: Source) -> None:
    class Mine(DataSource):
        def load(self, root: Path) -> Source:
            assert root == Path("here")
            return digits_source

    assert Mine()(Path("here")) is digits_source
    part = Mine(subset=30, repeats=3)(Path("here"))  # first a part, then that part three times
    expected = repeat_with_noise(random_subset(digits_source, 30), 3)
    assert torch.equal(part.train.images, expected.train.images)
    assert torch.equal(part.train.labels, expected.train.labels)
    assert len(part.train.labels) == 90
    with pytest.raises(TypeError, match="abstract"):
        DataSource()


def test_a_part_of_a_tree_keeps_its_names(tree: Path) -> None:
    whole, part = folder_source(tree), folder_source(tree, subset=2)
    check_source(part)
    assert len(part.files) == 2
    for file, image, label in zip(part.files, *part.train, strict=True):
        index = whole.files.index(file)
        assert torch.equal(image, whole.train.images[index])
        assert label == whole.train.labels[index]


# What is checked


def test_a_source_that_forgets_names_of_files_is_refused() -> None:
    images = Images(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0]))
    check_source(Source(images, images, ["a", "b"], ["x", "y", "z"]))
    with pytest.raises(SettingError, match="2 names of files for 3 images"):
        check_source(Source(images, images, ["a", "b"], ["x", "y"]))


def vectors(size: int, width: int = 3) -> Images:
    return Images(torch.arange(1.0 * size * width).view(size, width), torch.arange(size) % 2)


def test_vectors_are_a_source_too_with_pictures_for_people() -> None:
    pictures = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    check_source(Source(vectors(4), vectors(2), ["a", "b"]))
    check_source(Source(vectors(4), vectors(2), ["a", "b"], pictures=pictures))
    with pytest.raises(SettingError, match=r"--data\.source: train has 4 pictures for 5 images"):
        check_source(Source(vectors(5), vectors(2), ["a", "b"], pictures=pictures))


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("part", ["train", "test"])
def test_vectors_of_numbers_that_are_not_finite_are_refused(part: str, number: float) -> None:
    source = Source(vectors(4), vectors(2), ["a", "b"])
    getattr(source, part).images[1, 2] = number
    with pytest.raises(SettingError, match=f"{part} has NaN or infinite numbers"):
        check_source(source)


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (vectors(2, 4), "test has images of another size than train"),
        (
            Images(torch.zeros(2, 3, 1, 1, dtype=torch.uint8), torch.tensor([0, 1])),
            "test has images of another size than train",
        ),
        (Images(vectors(2).images.double(), torch.tensor([0, 1])), "type torch.float64"),
        (Images(vectors(2).images[:0], torch.empty(0, dtype=torch.long)), "test has no images"),
    ],
    ids=["width", "pictures", "double", "none"],
)
def test_a_test_set_of_another_kind_than_w_is_refused(test: Images, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        check_source(Source(vectors(4), test, ["a", "b"]))
