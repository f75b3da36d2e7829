"""Files that are there whole or not at all, also after a power cut."""

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from baldvae_pl.errors import SettingError


@contextmanager
def replacing(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a file beside ``path`` that takes its place once it is written and on the disk.

    Args:
        path: The target; its folder is made if it is missing.
        mode: As of ``open``.
        options: As of ``open``.

    Raises:
        SettingError: If it cannot be written; what was at ``path`` is still there then.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        make_folder(path.parent)
        with temporary.open(mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save makes a RuntimeError of a full disk
        temporary.unlink(missing_ok=True)
        raise SettingError(
            f"{path} cannot be written ({error}). Make room on the disk, or fix the folder."
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing; all are on the disk when it returns.

    Raises:
        OSError: If one cannot be made.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's own entries on the disk: without it a power cut may undo a rename."""
    if os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(content: Any) -> str:
    """Return the CRC-32 of plain values as 8 hexadecimal digits: notices what a disk changes."""
    return f"{zlib.crc32(json.dumps(content).encode()):08x}"
