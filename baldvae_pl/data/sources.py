"""Sources of W and of the test set.

A source is a function from a folder to a `Source`. Images are uint8 of shape (n, channels, height,
width); labels are int64 in 0 .. len(classes) - 1. Add one by writing such a function: its import
path is what ``--data.source`` takes. If it has parameters named ``image_size``, ``channels``,
``skip_unreadable`` or ``cache_folder``, it gets the settings of that name.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from baldvae_pl.data.image_folder import find_images, read_images
from baldvae_pl.seeding import Purpose, make_generator
from baldvae_pl.errors import SettingError

__all__ = ["CIFAR10", "MNIST", "FashionMNIST", "ImageFolder", "digits"]


NOISE = 7.9
"""Of repeated images, in levels of 0 to 255: 0.1 of the standard deviation of MNIST's pixels."""


class Images(NamedTuple):
    """Images and their labels, index by index."""

    images: Tensor
    labels: Tensor


class Source(NamedTuple):
    """A data set.

    Attributes:
        train: W.
        test: Never enters a pool.
        classes: Their names.
        files: Of each image of W, for people to find it.
        fingerprint: Tells W from other images; left out, they are hashed at every start.
    """

    train: Images
    test: Images
    classes: list[str]
    files: list[str] | None = None
    fingerprint: str | None = None


def check_source(source: Source) -> None:
    """Raise a SettingError if a source is not as described above."""
    tensors = [*source[0], *source[1]] if isinstance(source, Source) else []
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise SettingError(
            f"--data.source: it returned {type(source).__name__}, not a Source of Images, which "
            "hold torch tensors. Mend the source."
        )
    shape = source.train.images.shape[1:]
    names, size = source.files, len(source.train.labels)
    for name, (images, labels) in (("train", source.train), ("test", source.test)):
        for wrong, what in (
            (images.dtype != torch.uint8, f"images of type {images.dtype}, not torch.uint8"),
            (images.ndim != 4, f"images of shape {tuple(images.shape)}, not (n, C, H, W)"),
            (images.shape[1:] != shape, "images of another size than train"),
            (labels.dtype != torch.int64, f"labels of type {labels.dtype}, not torch.int64"),
            (labels.ndim != 1, f"labels of shape {tuple(labels.shape)}, not (n,)"),
            (len(labels) != len(images), f"{len(images)} images, but {len(labels)} labels"),
            (len(labels) == 0, "no images"),
            (names and len(names) != size, f"{len(names or [])} names of files for {size} images"),
            (len(source.classes) < 2, f"the classes {source.classes}, not two or more"),
        ):
            if wrong:
                raise SettingError(f"--data.source: {name} has {what}. Mend the source.")
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(source.classes):
            raise SettingError(
                f"--data.source: {name} has labels from {int(labels.min())} to "
                f"{int(labels.max())}, with {len(source.classes)} classes. Mend the source."
            )


def choose(source: Source, size: int | None) -> Source:
    """Return a source with so many images of W, at random, the same ones at every call.

    Raises:
        SettingError: If it has fewer.
    """
    if size is None:
        return source
    if size > (there := len(source.train.labels)):
        raise SettingError(
            f"--data.subset: {size} is more than the {there} images of the data set. Take at most "
            f"{there}, or leave it out."
        )
    chance = make_generator(0, 0, Purpose.SUBSET)
    chosen = torch.randperm(there, generator=chance)[:size].sort().values
    return source._replace(
        train=Images(*(part[chosen] for part in source.train)),
        files=source.files and [source.files[i] for i in chosen.tolist()],
        fingerprint=None,
    )


def repeat(source: Source, times: int) -> Source:
    """Return a source with each image of W so often, each time with other noise.

    The redundant pools of Repeated-MNIST (Kirsch et al. 2019): Gaussian noise of `NOISE`, the same
    at every call. With n images, the copies of image i are i, i + n, i + 2n, …
    """
    if times == 1:
        return source
    chance = make_generator(0, 0, Purpose.REPEATS)
    images, labels = source.train
    noisy = images.repeat(times, 1, 1, 1)
    for part in noisy.split(4096):  # bounds the memory of floats
        noise = NOISE * torch.randn(part.shape, generator=chance)
        part.copy_((part + noise).round().clamp(0, 255))
    return source._replace(
        train=Images(noisy, labels.repeat(times)),
        files=source.files and source.files * times,
        fingerprint=None,
    )


def digits(root: Path) -> Source:
    """Return scikit-learn's bundled handwritten digits: 1,297 for W and 500 for testing.

    Real 8×8 images with 17 grey levels (UCI, Alpaydin and Kaynak 1998). Nothing is downloaded and
    ``root`` is not used. The stratified split is the same for every seed.
    """
    del root
    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=500, random_state=0, stratify=labels
    )
    parts = [Images(torch.tensor(pixels[i]), torch.tensor(labels[i])) for i in (train, test)]
    return Source(parts[0], parts[1], classes=[str(digit) for digit in range(10)])


def MNIST(root: Path) -> Source:  # noqa: N802
    """Return MNIST: 60,000 images for W, 10,000 for testing (LeCun et al. 1998).

    Found in ``root/MNIST/raw`` or downloaded to it by torchvision.

    Raises:
        SettingError: If the files are neither there nor to be had.
    """
    return _four_files(torchvision.datasets.MNIST, root)


def FashionMNIST(root: Path) -> Source:  # noqa: N802
    """Return Fashion-MNIST: 60,000 images for W, 10,000 for testing (Xiao et al. 2017).

    Found in ``root/FashionMNIST/raw`` or downloaded to it by torchvision.

    Raises:
        SettingError: If the files are neither there nor to be had.
    """
    return _four_files(torchvision.datasets.FashionMNIST, root)


def CIFAR10(root: Path) -> Source:  # noqa: N802
    """Return CIFAR-10: 50,000 colour images for W, 10,000 for testing (Krizhevsky 2009).

    Found in ``root/cifar-10-batches-py`` or downloaded to it by torchvision.

    Raises:
        SettingError: If the files are neither there nor to be had.
    """
    files = "the folder cifar-10-batches-py of cifar-10-python.tar.gz"
    train, test = _both_parts(torchvision.datasets.CIFAR10, root, files, root)
    parts = [
        Images(torch.tensor(part.data.transpose(0, 3, 1, 2)), torch.tensor(part.targets))
        for part in (train, test)
    ]
    return Source(parts[0], parts[1], train.classes)


def ImageFolder(  # noqa: N802
    root: Path,
    image_size: int = 32,
    channels: int = 3,
    skip_unreadable: bool = False,
    cache_folder: str | None = None,
) -> Source:
    """Return the images in ``root/train/<class>/`` as W, those in ``root/test/<class>/`` to test.

    Args:
        root: The folder; images may lie at any depth below a class, in any format of Pillow's.
        image_size: Height and width that they get, see `baldvae_pl.image_folder.decode`.
        channels: 1 for grey, 3 for RGB.
        skip_unreadable: Leave out what cannot be decoded.
        cache_folder: See `baldvae_pl.image_folder.read_images`.

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
    for folder, images in zip(folders, found, strict=True):
        if loose := [image.path for image in images if "/" not in image.path]:
            raise SettingError(
                f"--data.root: {folder / loose[0]} lies in no class folder. Move it to "
                f"{folder}/<class>/."
            )
    _classes(folders, [[image.path for image in images] for images in found])  # before decoding
    shape = (channels, image_size, image_size)
    decoded = [
        read_images(folder, images, shape, skip_unreadable, cache_folder, "--data.root")
        for folder, images in zip(folders, found, strict=True)
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
    """Return the class folder that an image lies in."""
    return file.split("/", 1)[0]


def _classes(folders: list[Path], files: list[list[str]]) -> list[str]:
    """Return the names of the class folders; each must have images in both parts."""
    names = [{f.name for f in folder.iterdir() if f.is_dir()} for folder in folders]
    classes = sorted(name for name in names[0] | names[1] if not name.startswith("."))
    for folder, inside in zip(folders, files, strict=True):
        if empty := sorted(set(classes) - {class_of(file) for file in inside}):
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
