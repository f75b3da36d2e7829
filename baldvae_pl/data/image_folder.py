"""Folders of images: found, decoded once in parallel, and mapped from an 8-bit cache afterwards."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from baldvae_pl.errors import SettingError

CACHE = "~/.cache/baldvae"
"""Where decoded folders are kept unless the user names another place; may be deleted any time."""

FULL_SCALE = {"I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I": 65535, "F": 1}
"""Full-scale value of Pillow's modes that are not 8 bits; larger values are clipped."""


class FoundImage(NamedTuple):
    """An image file that has not been opened yet."""

    path: str  # within the folder, with "/"
    size: int
    changed: int  # nanoseconds


class DecodedFolder(NamedTuple):
    """The images of a folder, index by index."""

    images: Tensor  # uint8, (n, channels, size, size), mapped from the cache
    files: list[str]  # within the folder
    fingerprint: str  # of the pixels


def image_suffixes() -> set[str]:
    """Return the endings, such as ``.png``, of the formats that Pillow reads."""
    return {end for end, format in Image.registered_extensions().items() if format in Image.OPEN}


def find_images(folder: Path, setting: str) -> list[FoundImage]:
    """Return the images under a folder, by name; hidden and other files are left alone.

    Links are followed.

    Raises:
        SettingError: If the folder cannot be read, or a link in it leads back to where it lies.
    """
    suffixes = image_suffixes()

    def walk(here: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[FoundImage]:
        if (real := here.resolve()) in above:
            raise SettingError(
                f"{setting}: {here} is a link that leads back to {real}, so that its images would "
                "be found again and again. Remove it."
            )
        with os.scandir(here) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        for entry in sorted(visible, key=lambda entry: entry.name):
            if entry.is_dir():
                yield from walk(here / entry.name, f"{prefix}{entry.name}/", (*above, real))
            elif os.path.splitext(entry.name)[1].lower() in suffixes:  # noqa: PTH122 (10⁶ names)
                # A broken link is found too, to be named as unreadable.
                about = entry.stat(follow_symlinks=not entry.is_symlink() or entry.is_file())
                yield FoundImage(prefix + entry.name, about.st_size, about.st_mtime_ns)

    try:
        return list(walk(folder, "", ()))
    except OSError as error:
        raise SettingError(
            f"{setting}: {str(folder)!r} cannot be read as a folder ({error.strerror}). Name one "
            "that can."
        ) from error


def read_images(
    folder: Path,
    found: list[FoundImage],
    image_shape: tuple[int, int, int],
    skip_unreadable: bool,
    cache_folder: str | None,
    setting: str,
    section: str,
) -> DecodedFolder:
    """Return the images found in a folder, decoded now or at an earlier start.

    The cache is keyed by the files' names, sizes and times, and written whole or not at all. Its
    pages are read as they are used, so a folder may be larger than the memory.

    Args:
        folder: Where they lie.
        found: What `find_images` found there.
        image_shape: (channels, height, width) of the result, see `decode`.
        skip_unreadable: Leave out what cannot be decoded.
        cache_folder: Where to keep the decoded images; left out, ``~/.cache/baldvae``.
        setting: Option that named the folder, for error messages.
        section: Options that have ``skip_unreadable`` and ``cache_folder``, likewise.

    Raises:
        SettingError: If an image cannot be decoded and may not be skipped, if none can, or if the
            cache cannot be written.
    """
    about = json.dumps([1, str(folder.resolve()), image_shape, found])
    key = hashlib.sha256(about.encode()).hexdigest()
    cache = Path(cache_folder or CACHE).expanduser()
    entry = cache / f"{folder.resolve().name}-{key[:20]}"
    if not entry.is_dir():
        try:
            _decode_into(entry, folder, [image.path for image in found], image_shape)
        except OSError as error:
            raise SettingError(
                f"{section}.cache_folder: decoded images cannot be kept in {str(cache)!r} "
                f"({error.strerror}). Name a folder that can be written, with "
                f"{len(found) * prod(image_shape) / 1e6:,.1f} MB of room."
            ) from error
    index = json.loads((entry / "index.json").read_text())
    files, unreadable = index["files"], index["unreadable"]
    if unreadable:
        some = ", ".join(f"{file} ({reason})" for file, reason in list(unreadable.items())[:3])
        what = f"{len(unreadable)} of {len(found)} images in {str(folder)!r} cannot be read: {some}"
        if len(unreadable) > 3:
            what += ", …"
        if not skip_unreadable:
            raise SettingError(
                f"{setting}: {what}. Fix or remove them, or leave them out by "
                f"{section}.skip_unreadable true."
            )
        rank_zero_info(f"Left out: {what}")
    if not files:
        raise SettingError(
            f"{setting}: there is no image in {str(folder)!r} that can be read. Name a folder with "
            "images; they are known by their ending, such as .jpg or .png."
        )
    pixels = torch.from_file(  # copy on write, so that the file is never changed
        str(entry / "images"),
        shared=False,
        size=len(files) * prod(image_shape),
        dtype=torch.uint8,
    )
    return DecodedFolder(pixels.view(-1, *image_shape), files, index["fingerprint"])


def _decode_into(
    entry: Path, folder: Path, files: list[str], image_shape: tuple[int, int, int]
) -> None:
    """Decode into a folder beside ``entry`` and rename it, so a half-written entry never exists."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    parts = Parts(folder, files, image_shape)
    # Processes, since Pillow holds Python's lock most of the time that a small image takes.
    workers = min(torch.get_num_threads(), len(parts) - 1)
    decoded = DataLoader(parts, batch_size=None, num_workers=max(workers, 0))
    bar = track(decoded, f"Decoding {folder.name}", len(parts), console=Console(stderr=True))
    digest, readable, unreadable = hashlib.sha256(), [], {}
    with tempfile.TemporaryDirectory(
        dir=entry.parent, prefix=f".{entry.name}.", ignore_cleanup_errors=True
    ) as temporary:
        with Path(temporary, "images").open("wb") as output:
            for results in bar:
                for name, result in results:
                    if isinstance(result, str):
                        unreadable[name] = result
                    else:
                        readable.append(name)
                        output.write(result)
                        digest.update(result)
            output.flush()
            os.fsync(output.fileno())
        index = {"files": readable, "unreadable": unreadable, "fingerprint": digest.hexdigest()}
        with Path(temporary, "index.json").open("w") as output:
            json.dump(index, output)
            output.flush()
            os.fsync(output.fileno())
        try:
            Path(temporary).rename(entry)
        except OSError:
            if not entry.is_dir():  # else another process was faster
                raise


class Parts(Dataset[list[tuple[str, bytes | str]]]):
    """The images of a folder, some at a time: name, and pixels or why it cannot be decoded."""

    def __init__(self, folder: Path, files: list[str], image_shape: tuple[int, int, int]) -> None:
        self.folder, self.image_shape = folder, image_shape
        self.parts = [files[start : start + 64] for start in range(0, len(files), 64)]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> list[tuple[str, bytes | str]]:
        """Decode a part."""
        return [(file, self.decode(self.folder / file)) for file in self.parts[index]]

    def decode(self, path: Path) -> bytes | str:
        """Return the pixels of an image, or in words why there are none."""
        try:
            return decode(path, self.image_shape).tobytes()
        except UnidentifiedImageError:
            return "not an image"
        except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
            return " ".join(str(error).split()) or type(error).__name__


def decode(path: Path, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Return an image as 8-bit array of shape (channels, height, width), grey or RGB.

    Upright as its EXIF says, the first frame of an animation, transparency on white, 16 bits
    reduced to 8; scaled so that it covers the shape, then cropped at the centre.
    """
    channels, *size = image_shape
    mode = "L" if channels == 1 else "RGB"
    with Image.open(path) as file:
        file.draft(mode, (2 * size[1], 2 * size[0]))  # scales a large JPEG while it is decoded
        image: Image.Image = file
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode in FULL_SCALE:
            values = np.asarray(image, dtype=np.float32) * (255 / FULL_SCALE[image.mode])
            image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        image = ImageOps.fit(image.convert(mode), (size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).reshape(*size, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
