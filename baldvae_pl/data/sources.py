"""Sources of W and of the test set.

A source is called with a folder and returns a `Source`. Add one by writing a function that does so,
or, if it has options, a subclass of `DataSource`: its import path is what ``--data.source`` takes.
"""

import unicodedata
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchvision
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from baldvae_pl.data.image_cache import read_images
from baldvae_pl.data.image_folder import find_images, is_hidden
from baldvae_pl.data.images import Images, Source
from baldvae_pl.data.variants import random_subset, repeat_with_noise
from baldvae_pl.errors import SettingError

__all__ = [
    "CIFAR10",
    "MNIST",
    "DataSource",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "Images",
    "Source",
]


class DataSource(ABC):
    """Reads a data set. Options of a subclass are the parameters of its ``__init__``.

    Args:
        subset: W is so many images of the data set, at random, the same for every seed.
        repeats: Each image of W is in it so often, with noise: ``RepeatedMNIST`` for MNIST, see
            `baldvae_pl.data.variants.repeat_with_noise`.
    """

    def __init__(self, subset: int | None = None, repeats: int = 1) -> None:
        for name, value in (("subset", subset), ("repeats", repeats)):
            if value is not None and value < 1:
                raise SettingError(f"--data.source.{name}: must be at least 1, got {value}.")
        self.subset = subset
        self.repeats = repeats

    @abstractmethod
    def load(self, root: Path) -> Source:
        """Return the whole data set, found in a folder or downloaded to it."""

    def __call__(self, root: Path) -> Source:
        """Return the data set with W as the options say."""
        source = self.load(root)
        if self.subset is not None:
            source = random_subset(source, self.subset)
        return source if self.repeats == 1 else repeat_with_noise(source, self.repeats)


class Digits(DataSource):
    """scikit-learn's bundled handwritten digits: 1,297 for W and 500 for testing.

    Real 8×8 images with 17 grey levels (UCI, Alpaydin and Kaynak 1998). Nothing is downloaded and
    the folder is not used. The stratified split is the same for every seed.

    Args:
        subset: See `DataSource`.
        repeats: See `DataSource`.
    """

    def load(self, root: Path) -> Source:
        """Return the digits."""
        del root
        return _digits()


def _digits() -> Source:
    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=500, random_state=0, stratify=labels
    )
    parts = [Images(torch.tensor(pixels[i]), torch.tensor(labels[i])) for i in (train, test)]
    return Source(parts[0], parts[1], classes=[str(digit) for digit in range(10)])


class MNIST(DataSource):
    """MNIST: 60,000 images for W, 10,000 for testing (LeCun et al. 1998).

    Found in ``root/MNIST/raw`` or downloaded to it by torchvision.

    Args:
        subset: See `DataSource`.
        repeats: See `DataSource`.
    """

    def load(self, root: Path) -> Source:
        """Return it, or raise a SettingError if the files are neither there nor to be had."""
        return _four_files(torchvision.datasets.MNIST, root)


class FashionMNIST(DataSource):
    """Fashion-MNIST: 60,000 images for W, 10,000 for testing (Xiao et al. 2017).

    Found in ``root/FashionMNIST/raw`` or downloaded to it by torchvision.

    Args:
        subset: See `DataSource`.
        repeats: See `DataSource`.
    """

    def load(self, root: Path) -> Source:
        """Return it, or raise a SettingError if the files are neither there nor to be had."""
        return _four_files(torchvision.datasets.FashionMNIST, root)


class CIFAR10(DataSource):
    """CIFAR-10: 50,000 colour images for W, 10,000 for testing (Krizhevsky 2009).

    Found in ``root/cifar-10-batches-py`` or downloaded to it by torchvision.

    Args:
        subset: See `DataSource`.
        repeats: See `DataSource`.
    """

    def load(self, root: Path) -> Source:
        """Return it, or raise a SettingError if the files are neither there nor to be had."""
        files = "the folder cifar-10-batches-py of cifar-10-python.tar.gz"
        train, test = _both_parts(torchvision.datasets.CIFAR10, root, files, root)
        parts = [
            Images(torch.tensor(part.data.transpose(0, 3, 1, 2)), torch.tensor(part.targets))
            for part in (train, test)
        ]
        return Source(parts[0], parts[1], train.classes)


class ImageFolder(DataSource):
    """Images in ``root/train/<class>/`` as W, those in ``root/test/<class>/`` to test.

    Args:
        image_size: Height and width that the images get: scaled so that they cover it, then cropped
            at the centre.
        channels: 3 for RGB, 1 for grey.
        skip_unreadable: Leave out image files that cannot be decoded, instead of refusing them.
        cache_folder: Where decoded images are kept, ``~/.cache/baldvae`` if left out.
        subset: See `DataSource`.
        repeats: See `DataSource`.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: Literal[1, 3] = 3,
        skip_unreadable: bool = False,
        cache_folder: str | None = None,
        subset: int | None = None,
        repeats: int = 1,
    ) -> None:
        super().__init__(subset, repeats)
        if image_size < 1:
            raise SettingError(f"--data.source.image_size: must be at least 1, got {image_size}.")
        self.image_shape = (channels, image_size, image_size)
        self.skip_unreadable = skip_unreadable
        self.cache_folder = cache_folder

    def load(self, root: Path) -> Source:
        """Return the images, which may lie at any depth below a class, in any format of Pillow's.

        Raises:
            SettingError: If images, or a class in one of the two, are missing or cannot be read.
        """
        folders = [root / "train", root / "test"]
        if missing := [str(folder) for folder in folders if not folder.is_dir()]:
            raise SettingError(
                f"--data.root: there is no folder {' and no '.join(missing)}. ImageFolder needs "
                f"{root}/train/<class>/ and {root}/test/<class>/ with images."
            )
        found = [find_images(folder, "--data.root") for folder in folders]
        for folder, (images, _) in zip(folders, found, strict=True):
            if loose := [image.path for image in images if "/" not in image.path]:
                raise SettingError(
                    f"--data.root: {folder / loose[0]} lies in no class folder. Move it to "
                    f"{folder}/<class>/."
                )
        _classes(folders, [[image.path for image in part.images] for part in found])  # no decoding
        decoded = [
            read_images(
                folder,
                part,
                self.image_shape,
                skip_unreadable=self.skip_unreadable,
                cache_folder=self.cache_folder,
                setting="--data.root",
                section="--data.source",
            )
            for folder, part in zip(folders, found, strict=True)
        ]
        classes = _classes(folders, [part.files for part in decoded])
        number = {name: label for label, name in enumerate(classes)}
        train, test = (
            Images(part.images, torch.tensor([number[class_of(file)] for file in part.files]))
            for part in decoded
        )
        files = [f"train/{file}" for file in decoded[0].files]
        return Source(train, test, classes, files, decoded[0].fingerprint)


def class_of(file: str) -> str:
    """Return the class folder that an image lies in.

    In Unicode's form NFC: macOS writes é as two characters, others as one.
    """
    return unicodedata.normalize("NFC", file.split("/", 1)[0])


def _classes(folders: list[Path], files: list[list[str]]) -> list[str]:
    """Return the names of the class folders; each must have images in both parts."""
    inside = [entry for folder in folders for entry in folder.iterdir() if entry.is_dir()]
    classes = sorted({class_of(entry.name) for entry in inside if not is_hidden(entry.name)})
    for folder, part in zip(folders, files, strict=True):
        if empty := sorted(set(classes) - {class_of(file) for file in part}):
            raise SettingError(
                f"--data.root: {folder} has no images of {', '.join(empty)}. Every class needs "
                "some in train and in test."
            )
    return classes


def _four_files(dataset: Any, root: Path) -> Source:
    """Return a data set in the format of MNIST."""
    raw = root / dataset.__name__ / "raw"
    files = (
        "the four files train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte "
        "and t10k-labels-idx1-ubyte"
    )
    train, test = _both_parts(dataset, root, files, raw)
    return Source(
        Images(train.data[:, None], train.targets),
        Images(test.data[:, None], test.targets),
        # MNIST's own names are such as "0 - zero".
        [name.split(" - ")[0] for name in dataset.classes],
    )


def _both_parts(dataset: Any, root: Path, files: str, place: Path) -> list[Any]:
    """Return torchvision's train and test set, downloaded if they are not there."""
    parts = []
    try:
        for train in (True, False):
            try:
                parts.append(dataset(str(root), train=train))
            except RuntimeError:  # torchvision's word for "not found"
                parts.append(dataset(str(root), train=train, download=True))
    except Exception as error:  # whatever a network or half a file leads to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SettingError(
            f"--data.root: no readable {dataset.__name__} in {str(root)!r}, and downloading it "
            f"failed ({reason}). Put {files} into {place}, or use --config digits.yaml, which "
            "needs no download."
        ) from error
    return parts
