"""Data sets as tensors: W and the test set, their checks and their fingerprint."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from baldvae_pl.errors import SettingError


class Images(NamedTuple):
    """Images and their labels, index by index."""

    images: Tensor
    labels: Tensor


class Source(NamedTuple):
    """A data set.

    Images are 8-bit pictures, uint8 of shape (n, channels, height, width), or vectors such as the
    features of a frozen network, float32 of shape (n, features). Labels are int64 in
    0 .. len(classes) - 1.

    Attributes:
        train: W.
        test: Never enters a pool.
        classes: Their names.
        files: Of each image of W, for people to find it.
        fingerprint: Tells W from other images; left out, they are hashed at every start.
        pictures: If W is vectors, an 8-bit picture of each for people to look at.
        labels_file: If people label W, the file of their answers. Labels of W that only they know
            are -1, classes are made while labelling, and there need be no test images.
    """

    train: Images
    test: Images
    classes: list[str]
    files: list[str] | None = None
    fingerprint: str | None = None
    pictures: Tensor | None = None
    labels_file: Path | None = None


def check_source(source: Source) -> None:
    """Raise a SettingError if a source is not as described above."""
    tensors = [*source[0], *source[1]] if isinstance(source, Source) else []
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise SettingError(
            f"--data.source: it returned {type(source).__name__}, not a Source of Images, which "
            "hold torch tensors. Fix the source."
        )
    train, size = source.train.images, len(source.train.labels)
    files, pictures, by_people = source.files, source.pictures, source.labels_file is not None
    for name, (images, labels) in (("train", source.train), ("test", source.test)):
        for wrong, what in (
            (
                (images.dtype, images.ndim) not in ((torch.uint8, 4), (torch.float32, 2)),
                f"images of type {images.dtype} and shape {tuple(images.shape)}, neither "
                "torch.uint8 (n, C, H, W) nor torch.float32 (n, D)",
            ),
            (images.shape[1:] != train.shape[1:], "images of another size than train"),
            (labels.dtype != torch.int64, f"labels of type {labels.dtype}, not torch.int64"),
            (labels.ndim != 1, f"labels of shape {tuple(labels.shape)}, not (n,)"),
            (len(labels) != len(images), f"{len(images)} images, but {len(labels)} labels"),
            (len(labels) == 0 and not (by_people and name == "test"), "no images"),
            (images.is_floating_point() and not images.isfinite().all(), "NaN or infinite numbers"),
            (files and len(files) != size, f"{len(files or [])} names of files for {size} images"),
            (
                pictures is not None and len(pictures) != size,
                f"{len(() if pictures is None else pictures)} pictures for {size} images",
            ),
            (
                len(source.classes) < 2 and not by_people,
                f"the classes {source.classes}, not two or more",
            ),
        ):
            if wrong:
                raise SettingError(f"--data.source: {name} has {what}. Fix the source.")
        least = -1 if by_people and name == "train" else 0
        if len(labels) and not least <= int(labels.min()) <= int(labels.max()) < len(
            source.classes
        ):
            raise SettingError(
                f"--data.source: {name} has labels from {int(labels.min())} to "
                f"{int(labels.max())}, with {len(source.classes)} classes. Fix the source."
            )


def check_range(images: Tensor, setting: str) -> None:
    """Warn of pictures whose pixels look as if they had been scaled wrongly.

    Args:
        images: 8-bit pictures, of which a hundred are looked at; vectors are passed over.
        setting: Option that named them.
    """
    if images.dtype != torch.uint8:
        return
    sample_n_P = images[:: -(-len(images) // 100)].flatten(1)
    highest_n = sample_n_P.amax(1)
    spans_n = highest_n - sample_n_P.amin(1)
    extreme_n = ((sample_n_P == 0) | (sample_n_P == 255)).float().mean(1)
    for found_n, what in (
        (
            (spans_n < 32) & (highest_n < 255),
            "nearly of one colour, their pixels differing by less than 32 of 255. Pixels of 12 "
            "bits in files of 16 look like that: bring them to the full range",
        ),
        (
            (extreme_n > 0.95) & (highest_n == 255),
            "black and white almost everywhere. Floats from 0 to 255 look like that, as they are "
            "cut off at 1: bring them to 0 to 1",
        ),
    ):
        share = float(found_n.float().mean())
        if share > 0.5:
            rank_zero_warn(
                f"{setting}: {share:.0%} of a sample of its images are {what} before, if that is "
                "so."
            )


def fingerprint(source: Source) -> str:
    """Return the SHA-256 of all images and labels, W's by its own fingerprint if it has one."""
    digest = hashlib.sha256((source.fingerprint or "").encode())
    images = [] if source.fingerprint else [source.train.images]
    for part in (*images, source.train.labels, *source.test):
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()
