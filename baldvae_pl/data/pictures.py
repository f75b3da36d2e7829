"""Pictures as files, for people to look at.

Those of images that a selection has made lie in a hidden folder beside the images of W, so that
they are no part of it. Their names follow from their pixels: the same image has the same answer, in
whatever run it is made.
"""

import hashlib
from pathlib import Path

import numpy as np
from torch import Tensor

from baldvae_pl.data.labels import MADE
from baldvae_pl.reports.pictures import as_image
from baldvae_pl.runs.files import replacing


def write_png(path: Path, image: Tensor) -> None:
    """Write an 8-bit image of shape (channels, height, width)."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    with replacing(path) as file:
        as_image(pixels).save(file, "PNG")


def made_files(images: Tensor) -> list[str]:
    """Return the files of 8-bit images, shape (n, channels, height, width), within W's folder."""
    digests = [hashlib.sha256(image.contiguous().numpy().data).hexdigest() for image in images]
    return [f"{MADE}/{digest[:16]}.png" for digest in digests]


def write_made(root: Path, images: Tensor) -> None:
    """Write those of these images that are not there yet.

    Raises:
        SettingError: If they cannot be written.
    """
    for image, file in zip(images, made_files(images), strict=True):
        if not (root / file).exists():
            write_png(root / file, image)
