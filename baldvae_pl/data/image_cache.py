"""Decoded folders of images: made once in parallel, checked and mapped at later starts."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info
from PIL import UnidentifiedImageError
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from baldvae_pl.data.decoding import decode
from baldvae_pl.data.image_folder import Found, FoundImage, some_of
from baldvae_pl.errors import SettingError
from baldvae_pl.runs.files import checksum

CACHE = "~/.cache/baldvae"
"""Where decoded folders are kept unless the user names another place; may be deleted any time."""

UNDER_WAY = ".baldvae-decoding"
"""How folders end that are not entries yet."""

Index = dict[str, Any]
"""Of an entry: ``files`` that are in it, in order; those that are ``unreadable``, and why; those
that were ``unread``, as the file system gave no bytes of them; the pixels' ``fingerprint``."""


class DecodedFolder(NamedTuple):
    """The images of a folder, index by index."""

    images: Tensor  # uint8, (n, channels, size, size), mapped from the cache
    files: list[str]  # within the folder
    fingerprint: str  # of the pixels


def read_images(
    folder: Path,
    found: Found,
    image_shape: tuple[int, int, int],
    skip_unreadable: bool,
    cache_folder: str | None,
    setting: str,
    section: str,
) -> DecodedFolder:
    """Return the images found in a folder, decoded now or at an earlier start; say how many.

    The cache is keyed by the files' names, sizes and times, and each of its bytes is checked. Its
    pages are read as they are used, so a folder may be larger than the memory. What an image file
    holds is remembered, also that it is no image; what could not be read is tried again.

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
    about = json.dumps([2, str(folder.resolve()), image_shape, found.images])
    key = hashlib.sha256(about.encode()).hexdigest()
    cache = Path(cache_folder or CACHE)
    try:
        entry = place_of(cache) / f"{folder.resolve().name}-{key[:20]}"
        index = usable(entry, folder) or renewed(entry, folder, found.images, image_shape)
    except (OSError, NotImplementedError) as error:  # which says that there are no locks
        raise SettingError(
            f"{section}.cache_folder: decoded images cannot be kept in {str(cache)!r} "
            f"({error}). Name a folder that can be written, with "
            f"{len(found.images) * prod(image_shape) / 1e6:,.1f} MB of room."
        ) from error
    files, left_out = index["files"], list(found.left_out)
    if unreadable := {**index["unread"], **index["unreadable"]}:
        some = some_of([f"{file} ({reason})" for file, reason in unreadable.items()])
        if not skip_unreadable:
            raise SettingError(
                f"{setting}: {len(unreadable)} of {len(found.images)} images in {str(folder)!r} "
                f"cannot be read: {some}. Fix or remove them, or leave them out by "
                f"{section}.skip_unreadable true."
            )
        left_out.insert(0, f"unreadable images: {len(unreadable):,} ({some})")
    if not files:
        there = f" Left out: {'; '.join(left_out)}." if left_out else ""
        raise SettingError(
            f"{setting}: there is no image in {str(folder)!r} that can be read. Name a folder with "
            f"images; they are known by their ending, such as .jpg or .png.{there}"
        )
    but = f"; left out: {'; '.join(left_out)}" if left_out else ""
    rank_zero_info(f"{folder}: {len(files):,} images{but}")
    pixels = torch.from_file(  # copy on write, so that the file is never changed
        str(entry / "images"),
        shared=False,
        size=len(files) * prod(image_shape),
        dtype=torch.uint8,
    )
    return DecodedFolder(pixels.view(-1, *image_shape), files, index["fingerprint"])


def place_of(cache: Path) -> Path:
    """Return the folder of the cache.

    Raises:
        OSError: If it is below a home folder, and there is none.
    """
    try:
        return cache.expanduser()
    except RuntimeError as error:
        raise OSError("there is no home folder here") from error


def usable(entry: Path, folder: Path) -> Index | None:
    """Return the index of an entry that is whole, and holds all that can be read now.

    That costs a pass over its pixels, as each round of active learning does.
    """
    try:
        index: Index = json.loads((entry / "index.json").read_bytes())
        sound = index.pop("checksum") == checksum(index)
        with (entry / "images").open("rb") as images:
            digest = hashlib.file_digest(images, "sha256").hexdigest()
        sound = sound and digest == index["fingerprint"]
        complete = not any(can_be_opened(folder / file) for file in index["unread"])
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    return index if sound and complete else None


def can_be_opened(path: Path) -> bool:
    """Whether the file system gives a byte of a file now."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def renewed(
    entry: Path, folder: Path, found: list[FoundImage], image_shape: tuple[int, int, int]
) -> Index:
    """Decode into a folder beside ``entry`` and rename it, so a half-written entry never exists.

    Raises:
        OSError: If it cannot be written.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    with alone(entry, f"decodes {folder}"):
        if index := usable(entry, folder):
            return index  # another process was faster
        if entry.exists():
            rank_zero_info(
                f"{entry} is damaged, not all there, or lacks what can be read now: the images are "
                "decoded again."
            )
        remove_leftovers(entry)
        temporary = temporary_of(entry)
        temporary.mkdir()
        try:
            index = decode_into(temporary, folder, found, image_shape)
            if entry.exists():
                shutil.rmtree(entry)
            temporary.rename(entry)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return index


def temporary_of(entry: Path) -> Path:
    """Return where an entry is made."""
    return entry.with_name(f".{entry.name}{UNDER_WAY}")


def lock_of(entry: Path) -> FileLock:
    """Return the lock that is held while an entry is made, by any user of the cache."""
    return FileLock(entry.with_name(f".{entry.name}.lock"), mode=0o666)


@contextmanager
def alone(entry: Path, what: str) -> Iterator[None]:
    """Hold the lock of an entry; if another process works on it, say what it does and wait."""
    lock = lock_of(entry)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        rank_zero_info(f"Another process {what}: waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def remove_leftovers(entry: Path) -> None:
    """Remove what starts that were killed have left in the cache, whatever they decoded."""
    for temporary in entry.parent.glob(f".*{UNDER_WAY}"):
        other = entry.with_name(temporary.name.removeprefix(".").removesuffix(UNDER_WAY))
        lock = lock_of(other)
        try:
            if other != entry:  # whose lock is held
                lock.acquire(timeout=0)
            shutil.rmtree(temporary)
        except (Timeout, OSError):  # it is being made, or is another user's
            continue
        finally:
            lock.release()


def decode_into(
    place: Path, folder: Path, found: list[FoundImage], image_shape: tuple[int, int, int]
) -> Index:
    """Write the decoded images of a folder, and their index."""
    parts = Parts(folder, found, image_shape)
    # Processes, since Pillow holds Python's lock most of the time that a small image takes.
    workers = min(torch.get_num_threads(), len(parts) - 1)
    decoded = DataLoader(parts, batch_size=None, num_workers=max(workers, 0))
    bar = track(decoded, f"Decoding {folder.name}", len(parts), console=Console(stderr=True))
    digest = hashlib.sha256()
    index: Index = {"files": [], "unreadable": {}, "unread": {}}
    with (place / "images").open("wb") as output:
        for results in bar:
            for name, pixels, unreadable, unread in results:
                if unread is not None:
                    index["unread"][name] = unread
                elif unreadable is not None:
                    index["unreadable"][name] = unreadable
                else:
                    index["files"].append(name)
                    output.write(pixels)
                    digest.update(pixels)
        output.flush()
        os.fsync(output.fileno())
    index["fingerprint"] = digest.hexdigest()
    with (place / "index.json").open("w", encoding="utf-8") as output:
        json.dump({**index, "checksum": checksum(index)}, output)
        output.flush()
        os.fsync(output.fileno())
    return index


class Decoded(NamedTuple):
    """What became of an image file."""

    name: str
    pixels: bytes = b""
    unreadable: str | None = None  # what the decoder says of its bytes
    unread: str | None = None  # why its bytes could not be had this time


class Parts(Dataset[list[Decoded]]):
    """The images of a folder, some at a time."""

    def __init__(
        self, folder: Path, found: list[FoundImage], image_shape: tuple[int, int, int]
    ) -> None:
        self.folder, self.image_shape = folder, image_shape
        self.parts = [found[start : start + 64] for start in range(0, len(found), 64)]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> list[Decoded]:
        """Decode a part."""
        return [self.decode(image) for image in self.parts[index]]

    def decode(self, image: FoundImage) -> Decoded:
        """Return the pixels of an image, or in words why there are none."""
        name = image.path
        try:
            content = (self.folder / name).read_bytes()
        except (OSError, MemoryError) as error:
            return Decoded(name, unread=getattr(error, "strerror", None) or type(error).__name__)
        if len(content) != image.size:
            return Decoded(name, unread="it changed while it was read")
        try:
            return Decoded(name, decode(content, self.image_shape).tobytes())
        except UnidentifiedImageError:
            return Decoded(name, unreadable="not an image")
        except MemoryError:
            return Decoded(name, unread="not enough memory")
        except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
            reason = " ".join(str(error).split()) or type(error).__name__
            return Decoded(name, unreadable=reason)
