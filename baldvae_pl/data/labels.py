"""`labels.csv`: what people have answered about the images of a folder, the only truth.

A row an answer, by file name, only ever appended to; the last row of a file counts. Whoever writes
such a row is an annotator: the labelling page, a spreadsheet, a script. Nothing here needs torch.

    time        when it was answered, in UTC
    file        within the folder of the images, with "/"
    label       a class; "cannot tell"; "withdrawn": as if it had not been answered; nothing: the
                image is kept for the audit and not answered yet
    annotator   who answered
    seconds     that the answer took
    round       that the question belonged to: the first round that was to train with the answer
    why         it was asked: "audit", "first", "query", "ahead", "review", "import"; "class": the
                row names no file, and makes a class of its label
"""

import csv
import io
import os
import time
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from baldvae_pl.errors import SettingError
from baldvae_pl.runs.files import sync_folder

COLUMNS = ("time", "file", "label", "annotator", "seconds", "round", "why")

AUDIT = "audit"
CLASS = "class"

MADE = ".made"
"""Hidden folder beside the images, of pictures that a selection has made."""

LABELS = "labels.csv"
"""Name of the file, beside the images."""

STILL = 1.0
"""Seconds after which a file that somebody else writes is taken to be whole."""


class Row(NamedTuple):
    """A row of the file; see the columns above."""

    file: str
    label: str
    annotator: str = ""
    seconds: str = ""
    round: str = ""
    why: str = ""
    time: str = ""


class LabelsFile:
    """The rows of a ``labels.csv``, and a way to add some.

    Reading changes nothing. A last row without an end counts once it is whole and nobody has
    written for a moment; adding a row ends it first. Nothing is ever taken out.

    Args:
        path: The file; it need not be there yet.
        setting: Option that named it, for error messages.

    Raises:
        SettingError: If it cannot be read, or is something else.
    """

    def __init__(self, path: Path, setting: str = "--data.labels") -> None:
        self.path = path
        self.setting = setting
        self.lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o666)
        self.generation = 0  # another one whenever all was read anew
        self._about: tuple[int, int, int] | None = None  # what the file system said of it
        self._forget()
        self.refresh()

    def refresh(self) -> bool:
        """Read what has been written since; whether there was anything.

        A program that saves the file anew, such as a spreadsheet, may have changed all of it.

        Raises:
            SettingError: As when it was opened.
        """
        content, still = self._content()
        if content is None:
            return False
        rows, generation = len(self.rows), self.generation
        if zlib.crc32(content[: self._read_to]) != self._crc or len(content) < self._read_to:
            content, still = self._settled()  # it may be half saved
            self._forget()
        whole = content.rfind(b"\n") + 1
        if len(content) > max(whole, self._read_to) and still and self._is_row(content[whole:]):
            whole = len(content)
        if whole > self._read_to:
            self._take(content[self._read_to : whole])
        return len(self.rows) != rows or self.generation != generation

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows; they are on the disk when this returns.

        Raises:
            SettingError: If they cannot be written. None of them is in the file then.
        """
        rows = list(rows)
        if not rows:
            return
        try:
            with self.lock:
                self.refresh()
                new = not self.path.exists() or not self.path.stat().st_size
                if not new and self._read_to == 0:
                    raise OSError("it has no header")
                # Without a buffer, whose rest would be written when the file is closed.
                with self.path.open("r+b" if not new else "w+b", buffering=0) as file:
                    self._end_last_row(file)
                    before = file.tell()
                    try:
                        rest = memoryview(self._as_text(rows, header=new))
                        while rest:
                            rest = rest[file.write(rest) :]
                        os.fsync(file.fileno())
                    except OSError:
                        os.ftruncate(file.fileno(), before)
                        raise
                if new:
                    sync_folder(self.path.parent)
        except (OSError, NotImplementedError) as error:
            raise SettingError(
                f"{self.setting}: {self.path} cannot be written ({error}). Nothing of this was "
                "saved. Make room on the disk, or fix the rights of the file and its folder."
            ) from error
        self.refresh()

    def check_writable(self) -> None:
        """Raise a SettingError if no row could be added."""
        place = self.path if self.path.exists() else self.path.parent
        if not os.access(place, os.W_OK) or not os.access(self.path.parent, os.W_OK):
            raise SettingError(
                f"{self.setting}: {self.path} cannot be written. Fix the rights of the file and "
                "its folder, or name a file elsewhere."
            )

    def digest(self, rows: int) -> str:
        """Return the CRC-32 of the first rows, by what they say and not how it is written."""
        text = "\n".join("\t".join(row[:2]) for row in self.rows[:rows])
        return f"{zlib.crc32(text.encode(errors='surrogateescape')):08x}"

    def _forget(self) -> None:
        self.rows: list[Row] = []
        self.complaints: list[str] = []  # about rows that could not be taken
        self.generation += 1
        self._read_to = self._crc = self._lines = 0
        self._layout: tuple[list[str], str] = ([*COLUMNS], ",")

    def _content(self) -> tuple[bytes | None, bool]:
        """Return what the file holds, None if nothing has changed, and whether it keeps still."""
        try:
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                still = time.time() - about.st_mtime > STILL
                now = (about.st_ino, about.st_size, about.st_mtime_ns)
                if now == self._about:
                    return None, still
                # Until it keeps still, it is looked at again: times are coarse.
                self._about = now if still else None
                return file.read(), still
        except FileNotFoundError:
            self._about = None
            return b"", True
        except OSError as error:
            raise SettingError(
                f"{self.setting}: {self.path} cannot be read ({error.strerror}). Fix its rights; "
                "it holds labels that were given."
            ) from error

    def _settled(self) -> tuple[bytes, bool]:
        """Return what the file holds once nobody writes it any more, or after some seconds."""
        for _ in range(50):
            self._about = None
            content, still = self._content()
            if still:
                break
            time.sleep(0.1)
        return content or b"", still

    def _is_row(self, text: bytes) -> bool:
        """Whether this has as many cells as a row; a header is taken for one, to be looked at."""
        names, separator = self._layout
        cells = cells_of(text.decode("utf-8", "surrogateescape"), separator)
        return self._read_to == 0 or len(cells) == len(names)

    def _end_last_row(self, file: Any) -> None:
        """End a last row that has no end; a torn one stays, as a row that is passed over."""
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")

    def _take(self, content: bytes) -> None:
        """Read whole rows that follow what has been read."""
        text = content.decode("utf-8-sig" if self._read_to == 0 else "utf-8", "surrogateescape")
        lines = text.replace("\r\n", "\n").split("\n")
        if self._read_to == 0:
            separator = ";" if ";" in lines[0] else ","
            self._layout = [cell.strip() for cell in cells_of(lines[0], separator)], separator
            if missing := [name for name in COLUMNS if name not in self._layout[0]]:
                raise SettingError(
                    f"{self.setting}: {self.path} has no column {', '.join(missing)}. Its first "
                    f"row has to be {','.join(COLUMNS)}; cells below may be empty."
                )
        names, separator = self._layout
        # Each line by itself: a quote that is never closed spoils no other row.
        for line in lines[:-1] if text.endswith("\n") else lines:
            self._lines += 1
            cells = cells_of(line, separator)
            if self._lines == 1 or not any(cells):
                continue
            if len(cells) != len(names):
                self.complaints.append(
                    f"row {self._lines} has {len(cells)} cells instead of {len(names)} and is "
                    "passed over"
                )
                continue
            found = dict(zip(names, cells, strict=True))
            cleaned = {name: found[name].strip() for name in COLUMNS if name != "file"}
            row = Row(file=found["file"], **cleaned)
            self.rows.append(row._replace(label=unicodedata.normalize("NFC", row.label)))
        self._read_to += len(content)
        self._crc = zlib.crc32(content, self._crc)

    def _as_text(self, rows: Sequence[Row], header: bool) -> bytes:
        names, separator = self._layout
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=separator, lineterminator="\n")
        if header:
            writer.writerow(names)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for row in rows:
            cells = row._replace(time=row.time or now)._asdict()
            writer.writerow([cells.get(name, "") for name in names])
        return text.getvalue().encode("utf-8", "surrogateescape")


def cells_of(line: str, separator: str) -> list[str]:
    """Return the cells of a line."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # longer than a cell may be
        return []


def names_of(files: Iterable[str]) -> dict[str, str]:
    """Return files by their names in Unicode's form NFC.

    macOS writes é as two characters, others as one; spreadsheets and scripts do as they like.
    """
    return {unicodedata.normalize("NFC", name): name for name in files}


def as_named(row: Row, names: Mapping[str, str]) -> Row:
    """Return a row with the name that the file has in a folder."""
    return row._replace(file=names.get(unicodedata.normalize("NFC", row.file), row.file))
