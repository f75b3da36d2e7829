"""What the labelling page shows and does: the open question, the answers, who has what open.

It knows nothing of HTTP, and it changes nothing but ``labels.csv``. What is asked comes from the
files that the newest run leaves in its folder, so that it works before, while and after a process
trains, and goes on when either is started again.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from baldvae_pl.answer import CANNOT_TELL, WITHDRAWN
from baldvae_pl.data.labels import CLASS, LabelsFile, Row, as_named, names_of
from baldvae_pl.data.question_file import Asked, OpenQuestion, question_in, read_json
from baldvae_pl.data.tally import Tally, why_no_class
from baldvae_pl.errors import SettingError
from baldvae_pl.labelling.curve import has_flattened
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.tables import read_rounds

LEASE = 10.0
"""Seconds for which nobody else is shown an image that somebody has open; a page that is there
renews it every second or two."""

REVIEW = "review"
UNDO = "undo"
AHEAD = "ahead"


class Refused(Exception):  # noqa: N818 (what the page says to a person)
    """A request that cannot be granted, with the sentence for the person."""


class Board:
    """The state behind the page.

    Args:
        find_run: Returns the newest run, if there is one.
        process: Says what the training process does: whether it is alive, and how it ended.
    """

    def __init__(
        self, find_run: Callable[[], RunFolder | None], process: Callable[[], dict[str, Any]]
    ) -> None:
        self._find_run, self._process = find_run, process
        self._lock = threading.RLock()
        self._drawing = threading.Lock()
        self._leases: dict[str, tuple[str, float]] = {}
        self._labels: LabelsFile | None = None
        self._tally = Tally([])
        self._question: OpenQuestion | None = None
        self._names: dict[str, str] = {}
        self._taken = (0, -1)  # rows, and the generation that they are of
        self._files: dict[str, str] = {}  # by id
        self._seen: dict[Path, tuple[float, Any]] = {}

    def state(self, tab: str, open_ids: Iterable[str]) -> dict[str, Any]:
        """Return all but images; what a browser's tab has open stays its own."""
        with self._lock:
            for image in open_ids:
                if self._leases.get(image, (tab, 0.0))[0] == tab:
                    self._leases[image] = (tab, time.monotonic() + LEASE)
            run, question = self._now()
            process = {**self._process(), **self._status(run)}
            if question is None or self._labels is None:
                return {"question": None, "process": process, "classes": [], "curve": []}
            tally, asked = self._tally, question.asked
            counts = Counter(tally.labels.values())
            spent = tally.spent(question.cannot_tell_cost)
            seconds = [float(row.seconds) for row in self._labels.rows[-50:] if is_number(row)]
            return {
                "question": {
                    "round": question.round,
                    "total": len(asked),
                    "answered": sum(tally.label(each.file) is not None for each in asked),
                },
                "classes": [{"name": name, "count": counts[name]} for name in tally.classes],
                "one_class": question.round == 0 and len({*counts} - {CANNOT_TELL}) < 2,
                "cannot_tell": counts[CANNOT_TELL],
                "budget": question.budget,
                "spent": spent,
                "seconds": median(seconds) if seconds else None,
                "annotators": Counter(row.annotator for row in self._labels.rows if answers(row)),
                "process": process,
                "curve": (curve := self._curve(run)),
                "flat": has_flattened([p["accuracy"] for p in curve if p["accuracy"] is not None]),
                "warnings": self._warnings(),
                "labels": str(self._labels.path),
            }

    def next(self, tab: str, skipped: list[str], count: int) -> list[dict[str, Any]]:
        """Return the next images for a tab, the open question first, then the rest of its rank.

        What was skipped comes last. Nobody gets what somebody else has open.
        """
        with self._lock:
            _, question = self._now()
            if question is None:
                return []
            now = time.monotonic()
            held = {image: lease for image, lease in self._leases.items() if lease[1] > now}
            self._leases = {image: lease for image, lease in held.items() if lease[0] != tab}
            waiting = self._waiting(question.asked)
            if not waiting and self._budget_left(question) > 0:
                waiting = self._waiting(question.ahead)
            ahead = bool(waiting) and waiting[0]["why"] == AHEAD
            if ahead:  # what others have open will be paid for, too
                count = min(count, int(self._budget_left(question)) - len(self._leases))
            free = [item for item in waiting if item["id"] not in self._leases]
            later = {image: place for place, image in enumerate(skipped)}
            free.sort(key=lambda item: later.get(item["id"], -1))
            given = free[: max(0, count)]
            for item in given:
                self._leases[item["id"]] = (tab, now + LEASE)
            return given

    def answer(self, who: str, images: list[str], label: str, seconds: float, mode: str) -> None:
        """Write an answer about one image or several; it is on the disk when this returns.

        Raises:
            Refused: If an image or the class is unknown, or there is nothing to answer.
            SettingError: If it cannot be written; then it is not saved.
        """
        with self._lock:
            question, labels = self._open()
            if label != CANNOT_TELL and label not in self._tally.classes:
                raise Refused(f"There is no class {label!r}. Make it first.")
            why = {each.file: each.why for each in (*question.ahead, *question.asked)}
            rows = []
            for file in map(self.file, images):
                reason = REVIEW if mode == REVIEW else why.get(file, AHEAD)
                each = f"{seconds / len(images):.1f}"
                rows.append(Row(file, label, who, each, str(question.round), reason))
            labels.append(rows)
            for image in images:
                self._leases.pop(image, None)

    def undo(self, who: str) -> dict[str, Any]:
        """Take back somebody's last answer that still holds, and return the image.

        What was said of it before holds again.

        Raises:
            Refused: If there is none.
            SettingError: If it cannot be written.
        """
        with self._lock:
            question, labels = self._open()
            rows = labels.rows
            last = {row.file: place for place, row in enumerate(rows) if row.label}
            for place in range(len(rows) - 1, -1, -1):
                row = rows[place]
                own = row.annotator == who and row.why != UNDO
                if own and row.file and row.label and last[row.file] == place:
                    before = [r.label for r in rows[:place] if r.file == row.file and r.label]
                    label = before[-1] if before else WITHDRAWN
                    labels.append([row._replace(label=label, time="", seconds="", why=UNDO)])
                    asked = {each.file: each for each in (*question.ahead, *question.asked)}
                    return self._item(asked.get(row.file) or Asked(row.file, row.why, 0))
            raise Refused("There is no answer of yours to take back.")

    def make_class(self, name: str, who: str) -> None:
        """Make a class, unless somebody else has just made it.

        Raises:
            Refused: If it cannot be one.
            SettingError: If it cannot be written.
        """
        with self._lock:
            _, labels = self._open()
            if name in self._tally.classes:
                return
            if reason := why_no_class(name, self._tally.classes):
                raise Refused(f"{reason[0].upper()}{reason[1:]}.")
            labels.append([Row("", name, who, why=CLASS)])
            self._now()

    def guess(self, image: str) -> list[dict[str, Any]]:
        """Return the classifier's prediction of an image that is asked about, likeliest first."""
        with self._lock:
            question, _ = self._open()
            file = self.file(image)
            for each in (*question.asked, *question.ahead):
                if each.file == file and each.probs is not None:
                    pairs = zip(question.classes, each.probs, strict=True)
                    ranked = sorted(pairs, key=lambda pair: -pair[1])
                    return [{"name": name, "probability": p} for name, p in ranked]
            return []

    def review(self, order: str) -> list[dict[str, Any]]:
        """Return labelled images that may be labelled wrongly, the most suspicious first.

        Args:
            order: "doubt": where the label is improbable to the classifier; "uncertain": by BALD.
        """
        with self._lock:
            run, _ = self._now()
            key = "bald" if order == "uncertain" else "doubt"
            images = sorted(self._review(run)["images"], key=lambda each: -each[key])
            reviewed = {
                row.file for row in (self._labels.rows if self._labels else []) if row.why == REVIEW
            }
            return [
                each
                | {
                    "id": self._id(each["file"]),
                    "label": self._tally.label(each["file"]) or each["label"],
                    "reviewed": each["file"] in reviewed,
                    "neighbours": [
                        {"id": self._id(file), "label": self._tally.label(file)}
                        for file in each["neighbours"]
                    ],
                }
                for each in images
            ]

    def report(self) -> str:
        """Return the page of the newest run.

        Raises:
            Refused: If it has no round yet.
            SettingError: If its tables are damaged.
        """
        from baldvae_pl.reports.run import page  # a second, which others need not wait for

        run = self._find_run()
        if run is None or not run.rounds.is_file():
            raise Refused("There is no round yet. Come back when the first one is over.")
        with self._drawing:  # matplotlib serves one at a time
            return page(run)

    def path(self, image: str) -> Path:
        """Return where an image lies.

        Raises:
            Refused: If the page has never shown it.
        """
        with self._lock:
            question, _ = self._open()
            name = Path(self.file(image))
            if name.is_absolute() or ".." in name.parts:  # as a row of the labels file may say
                raise Refused("This image is not known here. Load the page again.")
            return Path(question.root) / name

    def complement(self, number: int) -> Path | None:
        """Return the picture of a complement that belongs to an image of the review."""
        run = self._find_run()
        return None if run is None else run.review_pictures / f"{number}.png"

    def file(self, image: str) -> str:
        """Return the file of an id.

        Raises:
            Refused: If the page has never shown it.
        """
        if image not in self._files:
            raise Refused("This image is not known here. Load the page again.")
        return self._files[image]

    def _open(self) -> tuple[OpenQuestion, LabelsFile]:
        _, question = self._now()
        if question is None or self._labels is None:
            raise Refused("Nothing is asked yet. The process is still starting.")
        return question, self._labels

    def _now(self) -> tuple[RunFolder | None, OpenQuestion | None]:
        """Read what has changed on the disk."""
        run = self._find_run()
        question = None if run is None else self._cached(run.question, question_in)
        if question is None:
            return run, None
        both: tuple[Asked, ...] = (*question.asked, *question.ahead)
        path = Path(question.labels)
        if self._labels is None or self._labels.path != path:
            self._labels, self._taken = LabelsFile(path), (0, -1)
        labels = self._labels
        labels.refresh()
        if self._taken[1] != labels.generation or question is not self._question:
            self._question = question
            self._names = names_of(each.file for each in both)
            self._tally, self._taken = Tally(question.declared), (0, labels.generation)
        for row in labels.rows[self._taken[0] :]:
            self._tally.take(as_named(row, self._names))
        self._taken = (len(labels.rows), labels.generation)
        for each in both:
            self._id(each.file)
        return run, question

    def _waiting(self, asked: list[Asked]) -> list[dict[str, Any]]:
        return [self._item(each) for each in asked if self._tally.label(each.file) is None]

    def _item(self, asked: Asked) -> dict[str, Any]:
        return {
            "id": self._id(asked.file),
            "file": asked.file,
            "why": asked.why,
            "rank": asked.rank,
            "score": asked.score,
            "has_guess": asked.probs is not None,
        }

    def _id(self, file: str) -> str:
        image = hashlib.sha256(file.encode(errors="surrogateescape")).hexdigest()[:16]
        self._files[image] = file
        return image

    def _budget_left(self, question: OpenQuestion) -> float:
        if question.budget is None:
            return float("inf")
        return question.budget - self._tally.spent(question.cannot_tell_cost)

    def _status(self, run: RunFolder | None) -> dict[str, Any]:
        return {} if run is None else self._cached(run.status, read_json) or {}

    def _review(self, run: RunFolder | None) -> dict[str, Any]:
        found = None if run is None else self._cached(run.review, read_json)
        return found or {"images": []}

    def _curve(self, run: RunFolder | None) -> list[dict[str, float | None]]:
        if run is None or not run.rounds.is_file():
            return []
        wanted = {
            "labelled": "labels",
            "test_acc": "accuracy",
            "test_acc_low": "low",
            "test_acc_high": "high",
            "test_images": "images",
            "answers_agreement": "agreement",
        }
        rows = self._cached(run.rounds, read_rounds) or []
        return [
            {
                name: float(row[column]) if row.get(column) else None
                for column, name in wanted.items()
            }
            for row in rows
        ]

    def _warnings(self) -> list[str]:
        assert self._labels is not None
        return [*self._labels.complaints, *self._tally.complaints()]

    def _cached(self, path: Path, read: Callable[[Path], Any]) -> Any:
        """Return what a file says, read again only after it was replaced."""
        try:
            about = path.stat().st_mtime_ns
        except OSError:
            return None
        if path not in self._seen or self._seen[path][0] != about:
            try:
                self._seen[path] = (about, read(path))
            except SettingError:
                self._seen[path] = (about, None)
        return self._seen[path][1]


def answers(row: Row) -> bool:
    """Whether a row says what an image is."""
    return bool(row.file and row.label) and row.label != WITHDRAWN


def is_number(row: Row) -> bool:
    """Whether a row says how long its answer took."""
    return row.seconds.replace(".", "", 1).isdigit()
