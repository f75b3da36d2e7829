"""The ledger: what the oracle was asked and what it has answered, on the disk before all else.

A file of JSON lines that is only ever appended to. Three kinds of lines:

    {"data": "<fingerprint>"}                            what follows is about these images
    {"round": 3, "asked": [7, 1093, -2]}                 a question: indices, see `Question`
    {"round": 3, "image": 7, "label": 5}                 an answer given while it was open; instead
                                                         of a class "cannot tell" or "withdrawn"

and at the end of each a "crc": a CRC-32 of the line and of the images that it is about. A line is
on the disk, and the folders that name the file, before the next answer is waited for. A process
that is killed in the middle of a line leaves a torn one, which the next start cuts off. What a
broken disk has changed is said and passed over, so that its images are asked about again.
"""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from baldvae_pl.answer import CANNOT_TELL, WITHDRAWN, Answer, Label
from baldvae_pl.errors import SettingError
from baldvae_pl.runs.files import make_folder, sync_folder

KEYS = ({"data"}, {"round", "asked"}, {"round", "image", "label"})
"""Of the three kinds of lines."""


class Answers(NamedTuple):
    """The outcome of a question.

    Attributes:
        labels: By the question's indices: a class, or ``CANNOT_TELL``.
        corrections: By indices that were answered earlier: the new label, or ``WITHDRAWN``. Where
            people label, also what they answered without being asked.
        classes: Where people label: those that there are now.
        rows: Likewise: how many rows of the labels file say all this.
        spent: Likewise: what all answers have cost of the budget.
    """

    labels: dict[int, Label]
    corrections: dict[int, Label]
    classes: list[str] | None = None
    rows: int = 0
    spent: float = 0.0


class Ledger:
    """Questions and answers of one run.

    Args:
        path: The file; None keeps everything in memory alone.
        fingerprint: Of the images that the indices mean. What the file says of others stays in it
            and is passed over.

    Raises:
        SettingError: If the file cannot be read or written.
    """

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self.path = path
        self.asked: dict[int, list[int]] = {}
        self.answers: dict[int, list[Answer]] = {}
        self._corrections: dict[int, dict[int, Label]] = {}
        self._own: tuple[int, set[int]] = (-1, set())  # the question asked last
        self._fingerprint = fingerprint
        lines = [] if path is None or not path.is_file() else _read(path, fingerprint)
        about = None
        for line in lines:
            if "data" in line:
                about = line["data"]
            elif "asked" in line:
                self._open(line["round"], line["asked"])
            else:
                self._note(line["round"], Answer(line["image"], line["label"]))
        if about != fingerprint:
            self._append([{"data": fingerprint}])

    def ask(self, round: int, indices: Tensor) -> None:
        """Write down what is asked, unless it is what this round has asked before."""
        asked = indices.tolist()
        if self.asked.get(round) != asked:
            self._append([{"round": round, "asked": asked}])
            self._open(round, asked)

    def record(self, round: int, answers: Iterable[Answer]) -> None:
        """Write answers down; they are on the disk when this returns."""
        answers = list(answers)
        self._append([{"round": round, "image": a.image, "label": a.label} for a in answers])
        for answer in answers:
            self._note(round, answer)

    def known(self, round: int) -> dict[int, Label]:
        """Return the label of each image that was answered and not withdrawn, the last one.

        Up to this round: a run that goes on from an older checkpoint repeats what it did. An image
        that was answered only later, for another question, is known all the same.
        """
        labels: dict[int, Label] = {}
        for each in sorted(self.answers, key=lambda r: (r <= round, r)):
            labels |= {answer.image: answer.label for answer in self.answers[each]}
        return {index: label for index, label in labels.items() if label != WITHDRAWN}

    def corrections(self, round: int) -> dict[int, Label]:
        """Return corrections of earlier answers that came while this round's question was open."""
        return self._corrections.get(round, {})

    def _open(self, round: int, asked: list[int]) -> None:
        self.asked[round] = asked
        self._own = (round, set(asked))

    def _note(self, round: int, answer: Answer) -> None:
        """Keep an answer; what the question open just then did not ask about is a correction.

        A later question of the same round may ask about other images.
        """
        self.answers.setdefault(round, []).append(answer)
        if self._own[0] != round:
            self._own = (round, set(self.asked.get(round, ())))
        if answer.image not in self._own[1]:
            self._corrections.setdefault(round, {})[answer.image] = answer.label

    def _append(self, lines: list[dict[str, Any]]) -> None:
        if self.path is None or not lines:
            return
        try:
            make_folder(self.path.parent)
            new = not self.path.exists()
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write("".join(_sealed(line, self._fingerprint) + "\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise SettingError(
                f"{self.path} cannot be written ({error}). Make room on the disk, or fix the "
                "folder."
            ) from error


def check_answers(answers: Iterable[Answer], asked: set[int], classes: list[str]) -> None:
    """Raise a SettingError for an answer about another image, or with no such class.

    Args:
        answers: To be checked.
        asked: Indices that may be answered.
        classes: Their names.
    """
    for answer in answers:
        if not isinstance(answer, Answer) or answer.image not in asked:
            raise SettingError(
                f"--data.oracle: it answered {answer}, which is no Answer for an image that "
                "was asked about."
            )
        label = answer.label
        is_class = type(label) is int and 0 <= label < len(classes)
        if not is_class and label not in (CANNOT_TELL, WITHDRAWN):
            raise SettingError(
                f"--data.oracle: it answered {label!r} for image {answer.image}. A label is a "
                f"whole number from 0 to {len(classes) - 1}, CANNOT_TELL or WITHDRAWN."
            )


def _sealed(line: dict[str, Any], fingerprint: str) -> str:
    """Return a line about the images of this fingerprint, as it is written."""
    text = json.dumps(line)
    crc = zlib.crc32(text.encode(), zlib.crc32(fingerprint.encode()))
    return f'{text[:-1]}, "crc": "{crc:08x}"}}'


def _read(path: Path, fingerprint: str) -> list[dict[str, Any]]:
    """Return the sound lines about these images, and all that say which images follow.

    A torn last line is cut off the file. A line belongs to the images that its check sum was made
    with, so that a damaged line takes no other with it.

    Raises:
        SettingError: If the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingError(
            f"{path} cannot be read ({error.strerror}). Fix its rights; it holds labels that were "
            "given."
        ) from error
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
    lines, damaged, others = [], [], fingerprint
    for number, text in enumerate(content[:whole].split(b"\n")[:-1], 1):
        try:
            line = json.loads(text)
            crc = line.pop("crc")
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            damaged.append(number)
            continue
        about = str(line.get("data", fingerprint))
        if line.keys() in KEYS and _sealed(line, about)[-10:-2] == crc:
            lines.append(line)
            others = line.get("data", others)
        elif _sealed(line, others)[-10:-2] != crc:
            damaged.append(number)
    if damaged:
        rank_zero_warn(
            f"{path}: damaged and passed over: line {', '.join(map(str, damaged))}. Images whose "
            "answer is lost by that are asked about again. Check the disk."
        )
    return lines
