"""What people have answered so far about the images of W, as global indices and classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from baldvae_pl.answer import CANNOT_TELL
from baldvae_pl.data.image_folder import some_of
from baldvae_pl.data.images import Source
from baldvae_pl.data.labels import AUDIT, MADE, LabelsFile, Row, as_named, names_of
from baldvae_pl.data.pictures import made_files
from baldvae_pl.data.tally import Tally
from baldvae_pl.errors import SettingError

UNKNOWN = -1
NOBODY_CAN_TELL = -2
"""In place of a class."""


class Said(NamedTuple):
    """What the first rows of a labels file say.

    Attributes:
        rows: Their number.
        labels_N: Classes, ``UNKNOWN`` or ``NOBODY_CAN_TELL``.
        audit_N: Who is kept for the audit.
        made: By the negative index of an image that a selection has made, the same as `labels_N`.
        classes: Those declared, and those made in these rows.
        spent: How much of the budget the answers have cost.
    """

    rows: int
    labels_N: Tensor  # noqa: N815
    audit_N: Tensor  # noqa: N815
    made: dict[int, int]
    classes: list[str]
    spent: float

    def label(self, index: int) -> int:
        """Return the class of an image of W or of a made one, or what stands in its place."""
        return int(self.labels_N[index]) if index >= 0 else self.made[index]


class PeoplesLabels:
    """The labels file of W.

    Args:
        path: Of the file.
        source: Of the images: its classes are those that are declared, its labels of W those that
            are known without the file.
        cannot_tell_cost: What "cannot tell" costs, in labels.
    """

    def __init__(self, path: Path, source: Source, cannot_tell_cost: float = 1.0) -> None:
        assert source.files is not None
        self.file = LabelsFile(path)
        self.files = files = source.files
        self.declared = source.classes
        self.given_N = source.train.labels
        self.cannot_tell_cost = cannot_tell_cost
        self.index = {name: i for i, name in enumerate(files)}
        self.made: dict[int, str] = {}
        self._names = names_of(files)
        self._complained: set[str] = set()

    def know_made(self, indices: Tensor, images: Tensor) -> None:
        """Learn of images that a selection has made, and of their negative indices."""
        self.made |= zip(indices.tolist(), made_files(images), strict=True)

    def file_of(self, index: int) -> str:
        """Return the file of an image of W, or of one that was made."""
        return self.files[index] if index >= 0 else self.made[index]

    def knows(self, file: str) -> bool:
        """Whether it is an image of W, or one that was made."""
        return file in self.index or file in self.made.values()

    def rows(self, count: int | None = None) -> list[Row]:
        """Return the first rows, with the names of files as W has them."""
        rows = self.file.rows[:count]
        return [row if row.file in self.index else as_named(row, self._names) for row in rows]

    def said(self, count: int | None = None) -> Said:
        """Return what the first rows say; of all, if no number is given."""
        rows = self.rows(count)
        tally = Tally(self.declared, rows)
        classes = [*tally.classes]
        number = {name: label for label, name in enumerate(classes)} | {
            CANNOT_TELL: NOBODY_CAN_TELL
        }
        labels_N, audit_N = self.given_N.clone(), torch.zeros(len(self.files), dtype=torch.bool)
        known = {self.index[f]: number[x] for f, x in tally.labels.items() if f in self.index}
        if known:
            labels_N[[*known]] = torch.tensor([*known.values()])
        audit_N[[self.index[file] for file in tally.audit if file in self.index]] = True
        audit_N &= self.given_N == UNKNOWN
        made = {index: number.get(tally.label(f) or "", UNKNOWN) for index, f in self.made.items()}
        spent = tally.spent(self.cannot_tell_cost)
        return Said(len(rows), labels_N, audit_N, made, classes, spent)

    def complete_at(self, asked: Sequence[str], base: int, least_classes: int = 0) -> int | None:
        """Return how many rows it took until all of these images had an answer.

        That number follows from the file alone, and not from when it is looked at: a run that was
        stopped goes on with the same answers.

        Args:
            asked: Their files.
            base: The number of rows when they were asked about; it takes as many at least.
            least_classes: There have to be so many among all labels, too.

        Returns:
            None if some have no answer yet.
        """
        rows = self.rows()
        base = min(base, len(rows))  # somebody may have taken rows out
        tally = Tally(self.declared, rows[:base])
        given = {self.declared[label] for label in self.given_N.unique().tolist() if label >= 0}
        for count in range(base, len(rows) + 1):
            if count > base:
                tally.take(rows[count - 1])
            if any(tally.label(file) is None for file in asked):
                continue
            trained = {x for f, x in tally.labels.items() if self.knows(f) and f not in tally.audit}
            if len((trained | given) - {CANNOT_TELL}) >= least_classes:
                return count
        return None

    def keep_for_audit(self, indices: Tensor) -> None:
        """Note in the file that these images are for the audit, and never to be trained on."""
        self.file.append(Row(self.files[i], "", why=AUDIT) for i in indices.tolist())

    def answer(self, file: str, label: str, annotator: str, round: int, why: str) -> None:
        """Write an answer; it is on the disk when this returns."""
        self.file.append([Row(file, label, annotator, round=str(round), why=why)])

    def complain(self) -> None:
        """Warn of each row that says something that cannot be taken, once."""
        tally = Tally(self.declared, self.rows())
        found = [*self.file.complaints]
        of_w = [file for file in tally.said if not file.startswith(f"{MADE}/")]
        unknown = [file for file in of_w if file not in self.index]
        if unknown and len(unknown) == len(of_w):
            raise SettingError(
                f"--data.labels: none of the {len(unknown):,} files in {self.file.path} is among "
                f"the images ({some_of(unknown)}). It belongs to another folder: give that by "
                "--data.root, or another file by --data.labels."
            )
        if unknown:
            found.append(
                f"{len(unknown):,} files are not among the images ({some_of(unknown)}). Their "
                "rows stay, for when they come back"
            )
        found += tally.complaints()
        for text in found:
            if text not in self._complained:
                self._complained.add(text)
                rank_zero_warn(f"{self.file.path}: {text}.")
