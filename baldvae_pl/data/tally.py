"""What rows of a labels file say, taken together, and what may be the name of a class. No torch."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from baldvae_pl.answer import CANNOT_TELL, WITHDRAWN
from baldvae_pl.data.labels import AUDIT, Row


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
            self._make(row.label)
            return
        self._last[row.file] = row.label
        self.said.setdefault(row.file, {})[row.annotator] = row.label
        if not self.closed and row.label not in (CANNOT_TELL, WITHDRAWN):
            self._make(row.label)

    def _make(self, name: str) -> None:
        if name not in self.classes and why_no_class(name, self.classes) is None:
            self.classes[name] = None

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

    def complaints(self) -> list[str]:
        """Say what cannot be taken, or not without a word."""
        found = []
        for name, count in Counter(self.undeclared.values()).items():
            like = like_another(name, self.classes)
            found.append(
                f"{name!r} is no class ({count:,} images)"
                + (f", but {like!r} is" if like else "")
                + ". Until it is one (--data.source.classes, or on the page), or the rows are "
                "corrected by later ones, these images have no answer"
            )
        if several := self.disagreements:
            file, said = next(iter(several.items()))
            of = ", ".join(f"{who or 'nobody'}: {what}" for who, what in said.items())
            found.append(
                f"annotators disagree about {len(several):,} images, such as {file} ({of}). The "
                "last answer counts"
            )
        return found

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
