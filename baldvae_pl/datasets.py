"""Sources of W and of the test set.

A source is a function from a folder to a `Source`. Images are uint8 of shape (n, channels, height,
width); labels are int64 in 0 .. len(classes) - 1. Add one by writing such a function: its import
path is what ``--data.source`` takes.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from baldvae_pl.settings import SettingError

__all__ = ["MNIST", "digits"]


class Images(NamedTuple):
    """Images and their labels, index by index."""

    images: Tensor
    labels: Tensor


class Source(NamedTuple):
    """A data set: ``train`` is W, ``test`` never enters a pool."""

    train: Images
    test: Images
    classes: list[str]


def check_source(source: Source) -> None:
    """Raise a SettingError if a source is not as described above."""
    shape = source.train.images.shape[1:]
    for name, (images, labels) in (("train", source.train), ("test", source.test)):
        for wrong, what in (
            (images.dtype != torch.uint8, f"images of type {images.dtype}, not torch.uint8"),
            (images.ndim != 4, f"images of shape {tuple(images.shape)}, not (n, C, H, W)"),
            (images.shape[1:] != shape, "images of another size than train"),
            (labels.dtype != torch.int64, f"labels of type {labels.dtype}, not torch.int64"),
            (len(labels) != len(images), f"{len(images)} images, but {len(labels)} labels"),
            (len(labels) == 0, "no images"),
        ):
            if wrong:
                raise SettingError(f"--data.source: {name} has {what}. Mend the source.")
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(source.classes):
            raise SettingError(
                f"--data.source: {name} has labels from {int(labels.min())} to "
                f"{int(labels.max())}, with {len(source.classes)} classes. Mend the source."
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
    try:
        parts = [_download_if_missing(root, train) for train in (True, False)]
    except Exception as error:  # whatever a network or half a file leads to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SettingError(
            f"--data.root: no readable MNIST in {str(root)!r}, and downloading it failed "
            f"({reason}). Put the four files train-images-idx3-ubyte, "
            "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte into "
            f"{root / 'MNIST' / 'raw'}, or use --config digits.yaml, which needs no download."
        ) from error
    train, test = (Images(part.data[:, None], part.targets) for part in parts)
    return Source(train, test, classes=[str(digit) for digit in range(10)])


def _download_if_missing(root: Path, train: bool) -> torchvision.datasets.MNIST:
    try:
        return torchvision.datasets.MNIST(str(root), train=train)
    except RuntimeError:  # torchvision's word for "not found"
        return torchvision.datasets.MNIST(str(root), train=train, download=True)
