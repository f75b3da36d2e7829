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
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from baldvae_pl.answer import CANNOT_TELL, WITHDRAWN
from baldvae_pl.errors import SettingError
from baldvae_pl.runs.files import sync_folder

COLUMNS = ("time", "file", "label", "annotator", "seconds", "round", "why")

AUDIT = "audit"
CLASS = "class"

TAIL = 64
"""Bytes by which a file is known to have only grown."""


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

    Args:
        path: The file; it need not be there yet.
        setting: Option that named it, for error messages.

    Raises:
        SettingError: If it cannot be read, or is something else.
    """

    def __init__(self, path: Path, setting: str = "--data.labels") -> None:
        self.path = path
        self.setting = setting
        self.rows: list[Row] = []
        self.complaints: list[str] = []  # about rows that could not be taken
        self.lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o666)
        self.generation = 0  # another one whenever all was read anew
        self._read_to = 0
        self._tail = b""
        self._layout: tuple[list[str], str] = ([*COLUMNS], ",")
        self._lines = 0
        self.refresh()

    def refresh(self) -> bool:
        """Read what has been written since; whether there was anything.

        A program that saves the file anew, such as a spreadsheet, may have changed all of it.

        Raises:
            SettingError: As when it was opened.
        """
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, self._read_to - len(self._tail)))
                if size < self._read_to or file.read(len(self._tail)) != self._tail:
                    self._forget()
                    file.seek(0)
                new = file.read()
        except FileNotFoundError:
            changed = bool(self.rows)
            self._forget()
            return changed
        except OSError as error:
            raise SettingError(
                f"{self.setting}: {self.path} cannot be read ({error.strerror}). Fix its rights; "
                "it holds labels that were given."
            ) from error
        whole = new.rfind(b"\n") + 1
        if whole < len(new):  # torn, being written just now, or by an editor that ends no last row
            whole = self._whole_of(new, whole)
        if whole:
            self._take(new[:whole])
        return whole > 0

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
                self._repair()
                self.refresh()
                new = not self.path.exists() or not self.path.stat().st_size
                # Without a buffer, whose rest would be written when the file is closed.
                with self.path.open("ab", buffering=0) as file:
                    before = file.seek(0, os.SEEK_END)
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
        self.rows, self.complaints, self._read_to, self._tail = [], [], 0, b""
        self._lines = 0
        self.generation += 1

    def _whole_of(self, new: bytes, whole: int) -> int:
        """Return how much of what is new is whole rows, where the last one has no end."""
        try:
            with self.lock:  # nobody is writing it now
                self._repair()
            with self.path.open("rb") as file:
                file.seek(self._read_to)
                repaired = file.read()
        except (OSError, NotImplementedError):
            return whole  # to be read once it can be mended
        return len(new) if repaired[: len(new)] == new and len(repaired) > len(new) else whole

    def _repair(self) -> None:
        """End a last row that has no end, or cut it off if it is torn."""
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole == len(content):
                return
            torn = content[whole:]
            separator = b";" if b";" in content.split(b"\n", 1)[0] else b","
            if whole and torn.count(separator) >= content.split(b"\n", 1)[0].count(separator):
                file.write(b"\n")
            else:
                file.truncate(whole)
                self.complaints.append(
                    f"a torn last row was cut off, it was never confirmed: {torn[:80]!r}"
                )
            file.flush()
            os.fsync(file.fileno())

    def _take(self, content: bytes) -> None:
        """Read whole rows that follow what has been read."""
        text = content.decode("utf-8-sig" if self._read_to == 0 else "utf-8", "surrogateescape")
        if self._read_to == 0:
            separator = ";" if ";" in text.split("\n", 1)[0] else ","
            header = text.split("\n", 1)[0].split(separator)
            self._layout = [cell.strip().strip('"') for cell in header], separator
            if missing := [name for name in COLUMNS if name not in self._layout[0]]:
                raise SettingError(
                    f"{self.setting}: {self.path} has no column {', '.join(missing)}. Its first "
                    f"row has to be {','.join(COLUMNS)}; cells below may be empty."
                )
        names, separator = self._layout
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            self._lines += 1
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
        self._tail = (self._tail + content)[-TAIL:]

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


class Tally:
    """What rows say, taken together, in order.

    Args:
        declared: Classes known beforehand; where there are none, each label makes one.
        rows: The first rows.

    Attributes:
        classes: Those declared, and those made while labelling.
        audit: Files that are kept for the audit, answered or not.
        said: By file and annotator, the last label; what was withdrawn too.
    """

    def __init__(self, declared: Sequence[str], rows: Iterable[Row] = ()) -> None:
        self.closed = bool(declared)
        self.classes = dict.fromkeys(declared)
        self.audit: dict[str, None] = {}
        self.said: dict[str, dict[str, str]] = {}
        self._last: dict[str, str] = {}
        for row in rows:
            self.take(row)

    def take(self, row: Row) -> None:
        """Take one more row into account."""
        if row.why == AUDIT and row.file:
            self.audit[row.file] = None
        if not row.label:
            return
        if not row.file:
            self.classes.setdefault(row.label)
            return
        self._last[row.file] = row.label
        self.said.setdefault(row.file, {})[row.annotator] = row.label
        if not self.closed and row.label not in (CANNOT_TELL, WITHDRAWN):
            self.classes.setdefault(row.label)

    def label(self, file: str) -> str | None:
        """Return a file's class or ``CANNOT_TELL``; None if it has no answer, or no valid one."""
        label = self._last.get(file)
        return label if label == CANNOT_TELL or label in self.classes else None

    @property
    def labels(self) -> dict[str, str]:
        """The class, or ``CANNOT_TELL``, of each file that has an answer."""
        return {f: x for f, x in self._last.items() if x == CANNOT_TELL or x in self.classes}

    @property
    def undeclared(self) -> dict[str, str]:
        """By file, a label that is no class."""
        fine = {CANNOT_TELL, WITHDRAWN, *self.classes}
        return {file: label for file, label in self._last.items() if label not in fine}

    @property
    def disagreements(self) -> dict[str, dict[str, str]]:
        """By file, what its annotators say, if they do not say the same."""
        return {f: x for f, x in self.said.items() if len({*x.values()} - {WITHDRAWN}) > 1}

    def spent(self, cannot_tell_cost: float = 1.0) -> float:
        """Return how much of the budget all answers have cost, a label 1."""
        return sum(cannot_tell_cost if x == CANNOT_TELL else 1 for x in self.labels.values())


def like_another(name: str, classes: Iterable[str]) -> str | None:
    """Return a class from which this name differs in nothing but case or Unicode form."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    for other in classes:
        if other != name and unicodedata.normalize("NFKC", other).casefold() == folded:
            return other
    return None


def why_no_class(name: str, classes: Iterable[str]) -> str | None:
    """Say why this cannot be the name of a further class; None if it can."""
    if not name.strip() or any(not character.isprintable() for character in name):
        return "a class needs a name that can be printed"
    if name != name.strip() or len(name) > 100:
        return f"{name!r} begins or ends with a blank, or is longer than 100 characters"
    if name in (".", "..") or "/" in name or "\\" in name:
        return f"{name!r} cannot be the name of a folder"
    if name.casefold() in (CANNOT_TELL, WITHDRAWN):
        return f"{name!r} is a word of labels.csv"
    if other := like_another(name, classes):
        return f"{name!r} differs from the class {other!r} in case or Unicode form alone"
    return None
