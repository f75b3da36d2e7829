"""The open question, as a run leaves it in its folder for those who answer.

``question.json`` is for the labelling page and other programs; ``to_label.csv`` says the same to
people with a spreadsheet, who may answer in its column ``label``. Nothing here needs torch.
"""

import csv
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from baldvae_pl.runs.files import checksum, replacing
from baldvae_pl.runs.folder import RunFolder

TO_LABEL_COLUMNS = ["file", "label", "why", "rank", "score", "guess", "probability"]


class Asked(NamedTuple):
    """An image of a question.

    Attributes:
        file: Within the folder of the images.
        why: "audit", "first", "query", or "ahead": it would have come next.
        rank: From 1, the first choice.
        score: BALD in nats; None before there is a classifier.
        probs: The classifier's mean prediction, by class; None likewise.
    """

    file: str
    why: str
    rank: int
    score: float | None = None
    probs: list[float] | None = None


class OpenQuestion(NamedTuple):
    """A question, with all that one needs to answer it.

    Attributes:
        round: The first round that trains with the answers.
        rows: Number of rows of the labels file when it was asked.
        digest: Of these rows.
        root: Folder of the images.
        labels: The labels file.
        declared: Classes that are known beforehand.
        classes: Those that the classifier knows, as in ``probs``.
        asked: What is asked, the first choice first.
        ahead: What may be answered beyond it, while a round trains.
        budget: Answers that may be asked for in all; None: no limit.
        cannot_tell_cost: What "cannot tell" costs of it.
    """

    round: int
    rows: int
    digest: str
    root: str
    labels: str
    declared: list[str]
    classes: list[str]
    asked: list[Asked]
    ahead: list[Asked]
    budget: int | None
    cannot_tell_cost: float


def write_question(run: RunFolder, question: OpenQuestion, answered: Collection[str] = ()) -> None:
    """Write both files, whole or not at all.

    Args:
        run: Where to.
        question: What is asked.
        answered: Files that have a label already.

    Raises:
        SettingError: If they cannot be written.
    """
    content = question._asdict() | {
        part: [asked._asdict() for asked in getattr(question, part)] for part in ("asked", "ahead")
    }
    write_json(run.question, content)
    write_to_label(run.to_label, question, answered)


def end_question(run: RunFolder) -> None:
    """Say that nothing is asked any more; the page still shows what there is."""
    question = question_in(run.question)
    if question is not None:
        write_question(run, question._replace(asked=[]))
    run.to_label.unlink(missing_ok=True)


def question_in(path: Path) -> OpenQuestion | None:
    """Return the question of a file; None if there is none, or a damaged one."""
    content = read_json(path)
    if content is None:
        return None
    parts = {part: [Asked(**asked) for asked in content[part]] for part in ("asked", "ahead")}
    return OpenQuestion(**content | parts)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values with their check sum, whole or not at all."""
    with replacing(path, "w", encoding="utf-8") as file:
        json.dump({**content, "crc": checksum(content)}, file)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what `write_json` wrote; None if it is not there, or damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content if content.pop("crc") == checksum(content) else None
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None


def write_to_label(path: Path, question: OpenQuestion, answered: Collection[str]) -> None:
    """Write ``to_label.csv``: what has no label yet, with an empty cell for it."""
    with replacing(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(TO_LABEL_COLUMNS)
        for asked in question.asked:
            if asked.file in answered:
                continue
            guess = probability = ""
            if asked.probs is not None:
                best = max(range(len(asked.probs)), key=asked.probs.__getitem__)
                guess, probability = question.classes[best], f"{asked.probs[best]:.4f}"
            score = "" if asked.score is None else f"{asked.score:.6g}"
            writer.writerow([asked.file, "", asked.why, asked.rank, score, guess, probability])


def answers_in(path: Path) -> Iterable[tuple[str, str]]:
    """Return (file, label) of what somebody has filled in in ``to_label.csv``."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError:
        return []
    separator = ";" if ";" in text.split("\n", 1)[0] else ","
    rows = csv.DictReader(text.splitlines(), delimiter=separator)
    filled = [(row.get("file") or "", (row.get("label") or "").strip()) for row in rows]
    return [(file, label) for file, label in filled if file and label]
