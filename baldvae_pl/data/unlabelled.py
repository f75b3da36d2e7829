"""A folder of images that people label: the source of W where no data set knows the answers."""

import unicodedata
from pathlib import Path
from typing import Literal

import torch

from baldvae_pl.data.image_cache import read_images
from baldvae_pl.data.image_folder import Found, find_images, some_of
from baldvae_pl.data.images import Images, Source
from baldvae_pl.data.labels import LABELS
from baldvae_pl.data.sources import DataSource, class_of
from baldvae_pl.data.tally import like_another, why_no_class
from baldvae_pl.errors import SettingError


class UnlabelledFolder(DataSource):
    """Images in ``root/unlabelled/``, or simply in ``root``, whose classes people are asked for.

    W is these, at any depth, and the images of ``root/train/<class>/``, whose labels are there
    already. If there is a ``root/test/<class>/``, it is tested on. The answers are in
    ``root/labels.csv``.

    Args:
        classes: Their names, the first on key 1; those of class folders follow, and those that are
            made while labelling. Left out, without folders, each label makes one.
        image_size: Height and width that the images get: scaled so that they cover it, then cropped
            at the centre.
        channels: 3 for RGB, 1 for grey.
        skip_unreadable: Leave out image files that cannot be decoded, instead of refusing them.
        cache_folder: Where decoded images are kept, ``~/.cache/baldvae`` if left out.
    """

    def __init__(
        self,
        classes: list[str] | None = None,
        image_size: int = 32,
        channels: Literal[1, 3] = 3,
        skip_unreadable: bool = False,
        cache_folder: str | None = None,
    ) -> None:
        super().__init__()
        if image_size < 1:
            raise SettingError(f"--data.source.image_size: must be at least 1, got {image_size}.")
        self.classes = [unicodedata.normalize("NFC", name) for name in classes or []]
        self.image_shape = (channels, image_size, image_size)
        self.skip_unreadable = skip_unreadable
        self.cache_folder = cache_folder
        check_classes(self.classes)

    def load(self, root: Path) -> Source:
        """Return the images; a label of W that is not known is -1.

        Raises:
            SettingError: If there are no images to label, some cannot be read, or names of classes
                differ in case alone.
        """
        if not root.is_dir():
            raise SettingError(
                f"--data.root: there is no folder {str(root)!r}. Name the one with the images."
            )
        parts = [name for name in ("test", "train", "unlabelled") if (root / name).is_dir()]
        sorted_out = "train" in parts or "unlabelled" in parts
        found = find_images(root, "--data.root")
        if (root / LABELS).exists():  # its own files and its lock need no word
            own = ("files .csv: 1", "hidden files: 1")
            found = found._replace(left_out=[text for text in found.left_out if text not in own])
        if sorted_out:
            inside = [image for image in found.images if image.path.split("/", 1)[0] in parts]
            if beside := len(found.images) - len(inside):
                found.left_out.append(f"images outside of {', '.join(parts)}: {beside:,}")
            found = Found(inside, found.left_out)
        for image in found.images:
            if "\n" in image.path or "\r" in image.path:
                raise SettingError(
                    f"--data.root: the name of {image.path!r} has a line break, which no table of "
                    "labels can hold. Rename it."
                )
            if sorted_out and is_labelled(image.path) and image.path.count("/") < 2:
                raise SettingError(
                    f"--data.root: {root / image.path} lies in no class folder. Move it to "
                    f"{root / image.path.split('/', 1)[0]}/<class>/, or to {root}/unlabelled/."
                )
        decoded = read_images(
            root,
            found,
            self.image_shape,
            skip_unreadable=self.skip_unreadable,
            cache_folder=self.cache_folder,
            setting="--data.root",
            section="--data.source",
        )
        files = decoded.files
        folders = [
            class_of(file.split("/", 1)[1]) if sorted_out and is_labelled(file) else None
            for file in files
        ]
        classes = [*dict.fromkeys([*self.classes, *sorted({f for f in folders if f})])]
        check_classes(classes)
        if self.classes and len(classes) == 1:
            raise SettingError(
                f"--data.source.classes: {classes[0]!r} alone cannot be told from another. Give at "
                "least two, or none, to make them while labelling."
            )
        number = {name: label for label, name in enumerate(classes)}
        labels = torch.tensor([-1 if name is None else number[name] for name in folders])
        # In order of names all of test comes first, so that neither part is copied.
        tested = sum(sorted_out and file.startswith("test/") for file in files)
        if tested == len(files):
            raise SettingError(
                f"--data.root: there is no image to label in {str(root)!r}. Put some into "
                f"{root}/unlabelled/, or directly into a folder."
            )
        return Source(
            Images(decoded.images[tested:], labels[tested:]),
            Images(decoded.images[:tested], labels[:tested]),
            classes,
            files[tested:],
            decoded.fingerprint,
            labels_file=root / LABELS,
        )


def is_labelled(file: str) -> bool:
    """Whether a file lies where folders are classes."""
    return file.startswith(("test/", "train/"))


def check_classes(classes: list[str]) -> None:
    """Raise a SettingError for names that cannot be classes side by side."""
    for place, name in enumerate(classes):
        others = classes[:place]
        if name in others:
            raise SettingError(f"--data.source.classes: {name!r} is given twice. Give it once.")
        reason = why_no_class(name, others)
        if reason is not None:
            pair = some_of([name, *filter(None, [like_another(name, others)])])
            raise SettingError(f"--data.source.classes: {reason}. Rename or merge: {pair}.")
