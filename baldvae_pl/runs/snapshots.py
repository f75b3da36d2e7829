"""What a round looked like: some pictures, and how the classifier did, for people to look at.

A round leaves one, of a bounded size whatever W is. TensorBoard and reports are made from it, and
so need neither torch nor the images of W.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from baldvae_pl.runs.files import replacing

MOST = 24
"""Pictures of a kind."""

BINS = 15
"""Of the reliability diagram, as of the calibration error."""


class Gallery(NamedTuple):
    """Pictures of one kind, with what the classifier says of them.

    Attributes:
        pictures: 8-bit, shape (n, height, width, channels), at most 64 pixels high and wide.
        labels: Classes, shape (n,); -1 where it is not known, -2 where nobody can tell.
        guesses: Classes by the mean prediction over the draws, shape (n,).
        confidences: The probability of these, shape (n,).
        scores: BALD in nats, shape (n,).
    """

    pictures: np.ndarray
    labels: np.ndarray
    guesses: np.ndarray
    confidences: np.ndarray
    scores: np.ndarray


class Snapshot(NamedTuple):
    """What a round looked like at its end.

    Attributes:
        classes: Names.
        confusion_C_C: How many test images of a class, a row, were given a class, a column.
        reliability: For each of `BINS` of confidence the number of test images, the mean confidence
            and the share that was right, shape (BINS, 3).
        bought: Of the purchase, the first choice first.
        passed: The most uncertain images of U that were not bought.
        parents: Of complements.
        complements: Theirs.
        distances: Of these from their parents: the root of the mean squared difference of a pixel.
        doubtful: Of the labelled images that are most uncertain, those whose label is improbable.
        beliefs: The probability of these labels.
        versions: What the round was made with.
    """

    classes: list[str]
    confusion_C_C: np.ndarray  # noqa: N815
    reliability: np.ndarray
    bought: Gallery
    passed: Gallery
    parents: Gallery
    complements: Gallery
    distances: np.ndarray
    doubtful: Gallery
    beliefs: np.ndarray
    versions: str


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot, whole or not at all.

    Raises:
        SettingError: If it cannot be written.
    """
    arrays: dict[str, Any] = {}
    for name, value in snapshot._asdict().items():
        if isinstance(value, Gallery):
            arrays |= {f"{name}.{part}": array for part, array in value._asdict().items()}
        else:
            arrays[name] = np.asarray(value)
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)


def read_snapshot(path: Path) -> Snapshot | None:
    """Return a snapshot; None if there is none, or a damaged one."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
        galleries = {
            name: Gallery(*(arrays[f"{name}.{part}"] for part in Gallery._fields))
            for name, kind in Snapshot.__annotations__.items()
            if kind is Gallery
        }
        return Snapshot(
            classes=arrays["classes"].tolist(),
            confusion_C_C=arrays["confusion_C_C"],
            reliability=arrays["reliability"],
            distances=arrays["distances"],
            beliefs=arrays["beliefs"],
            versions=str(arrays["versions"]),
            **galleries,
        )
    except Exception:  # of a damaged file zipfile, zlib and numpy raise anything
        return None
