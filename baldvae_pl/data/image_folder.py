"""Folders of images: which files are in them, and what is left out."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from baldvae_pl.data.decoding import image_suffixes
from baldvae_pl.data.labels import MADE
from baldvae_pl.errors import SettingError

HIDDEN = (".", "@", "#", "$")
"""What folders begin with that operating systems and network drives keep for themselves."""

SYSTEM = {"__MACOSX", "System Volume Information", "lost+found"}
"""Others of theirs."""


class FoundImage(NamedTuple):
    """An image file that has not been opened yet."""

    path: str  # within the folder, with "/"
    size: int
    changed: int  # nanoseconds


class Found(NamedTuple):
    """What is in a folder."""

    images: list[FoundImage]
    left_out: list[str]  # in words, such as "files .txt: 12"


def find_images(folder: Path, setting: str) -> Found:
    """Return the images under a folder, by name, and what is passed over.

    Links are followed. Hidden files and folders, and files with other endings than those of images,
    are left alone.

    Raises:
        SettingError: If a folder cannot be read, or a link in it leads back to where it lies.
    """
    suffixes = image_suffixes()
    hidden: list[str] = []
    others: Counter[str] = Counter()

    def walk(here: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[FoundImage]:
        if (real := here.resolve()) in above:
            raise SettingError(
                f"{setting}: {here} is a link that leads back to {real}, so that its images would "
                "be found again and again. Remove it."
            )
        try:
            with os.scandir(here) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError as error:
            raise SettingError(
                f"{setting}: {str(here)!r} cannot be read as a folder ({error.strerror}). Name one "
                "that can, or fix its rights."
            ) from error
        for entry in entries:
            name, ending = entry.name, os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (10⁶)
            if name == MADE and not prefix:
                continue  # ours
            if is_hidden(name) and entry.is_dir():
                hidden.append(f"{prefix}{name}/")
            elif name.startswith("."):
                others["hidden files"] += 1
            elif entry.is_dir():
                yield from walk(here / name, f"{prefix}{name}/", (*above, real))
            elif ending not in suffixes:
                others[f"files {ending}" if ending else "files without an ending"] += 1
            elif entry.is_file() or entry.is_symlink():
                # A broken link is found too, to be named as unreadable.
                about = entry.stat(follow_symlinks=entry.is_file())
                yield FoundImage(prefix + name, about.st_size, about.st_mtime_ns)
            else:
                others["pipes, sockets and devices"] += 1

    images = list(walk(folder, "", ()))
    left_out = [f"{what}: {count:,}" for what, count in others.most_common()]
    if hidden:
        left_out.insert(0, f"hidden folders: {len(hidden):,} ({some_of(hidden)})")
    return Found(images, left_out)


def is_hidden(folder: str) -> bool:
    """Whether a folder of this name is one of the operating system's or a network drive's."""
    return folder.startswith(HIDDEN) or folder in SYSTEM


def some_of(names: list[str]) -> str:
    """Return the first three, and … if there are more."""
    return ", ".join([*names[:3], "…"] if len(names) > 3 else names)
