"""Oracles: who answers which class an image is.

An oracle is an `Oracle`, which gets the whole question and answers as it likes: all at once, one
image at a time, "cannot tell", a correction of an earlier answer, or "not yet". Where labels are
simply known, a plain function from global indices to labels will do, both int64, shape (n,).
"""

import csv
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from baldvae_pl.answer import CANNOT_TELL, WITHDRAWN, Answer, Label
from baldvae_pl.errors import SettingError
from baldvae_pl.seeding import Purpose, make_generator

__all__ = [
    "CANNOT_TELL",
    "WITHDRAWN",
    "Answer",
    "KnownLabels",
    "Label",
    "LabelFunction",
    "NotYet",
    "Oracle",
    "People",
    "Question",
    "SimulatedPerson",
]


class Question(NamedTuple):
    """Images whose classes are asked for.

    Attributes:
        round: The first round that trains with the answers; 0 for the first labels.
        indices: Global indices in W, the first choice first; an image that is not in W has a
            negative one, which no other image of the run has.
        images: The images as W holds them, index by index.
        classes: Names of the classes; a label is a position in it.
        files: Names of the images, if they have names; empty for an image that is not in W, unless
            people label it.
        scores: BALD scores in nats; None for the first labels, when there is no classifier yet.
        probs_K_C: The classifier's mean prediction; None likewise.
        ahead: Where people label: what would have come next, which they may answer as well.
        ahead_scores: Of these; None likewise.
        ahead_probs_A_C: Of these; None likewise.
    """

    round: int
    indices: Tensor
    images: Tensor
    classes: list[str]
    files: list[str] | None = None
    scores: Tensor | None = None
    probs_K_C: Tensor | None = None  # noqa: N815
    ahead: Tensor | None = None
    ahead_scores: Tensor | None = None
    ahead_probs_A_C: Tensor | None = None  # noqa: N815

    def of(self, which: Tensor) -> "Question":
        """Return the same question about some of its images, given by their places in it."""
        files = self.files
        return self._replace(
            indices=self.indices[which],
            images=self.images[which],
            files=files and [files[i] for i in which.tolist()],
            scores=None if self.scores is None else self.scores[which],
            probs_K_C=None if self.probs_K_C is None else self.probs_K_C[which],
        )


class NotYet(Exception):  # noqa: N818 (no error: the run ends and goes on later)
    """Raised by an oracle that has no answer yet. The run ends; what was answered is kept.

    When it goes on, the same oracle is asked for the images that are left.
    """


class Oracle(ABC):
    """Answers questions. Options of a subclass are the parameters of its ``__init__``.

    Attributes:
        waits_for_the_file: Its answers come by the labels file, where people label; `answer` yields
            none, and is called again until all are there.
        folder: Where people label: that of the run, where the open question lies.
        simulates: It answers by the labels that the data set came with.
        knows_w_alone: It cannot be asked about images that are not in W.
        source: The data set, ``train`` and ``test`` with images and labels, if so.
    """

    waits_for_the_file = False
    folder: Path | None = None
    simulates = False
    knows_w_alone = False
    source: Any = None

    @abstractmethod
    def answer(self, question: Question) -> Iterable[Answer]:
        """Answer each image of the question; the last answer for an image counts.

        Each answer is on the disk before the next one is waited for.

        Raises:
            NotYet: If the run shall end and go on later.
        """


LabelFunction = Callable[[Tensor], Tensor]


class KnownLabels:
    """Answers with the data set's own labels: the simulated annotator of the literature.

    Args:
        labels: Labels of all of W.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __call__(self, indices: Tensor) -> Tensor:
        """Return the labels of these images."""
        return self.labels[indices]


class People(Oracle):
    """People, who write their answers into the labels file: on the page, or in any other way.

    Args:
        wait: Whether the run stays while they answer. Else it ends with exit code 75, and the same
            command goes on when the answers are there.
    """

    waits_for_the_file = True

    def __init__(self, wait: bool = False) -> None:
        self.wait = wait

    def answer(self, question: Question) -> Iterable[Answer]:
        """Wait a moment, or end the run.

        Raises:
            NotYet: If it does not wait.
        """
        del question
        if not self.wait:
            raise NotYet
        time.sleep(0.1)
        return ()


class SimulatedPerson(Oracle):
    """A person whose answers are known beforehand: slow, at times mistaken or unsure, and human.

    Which images it errs about follows from its seed and the image alone.

    Args:
        mistakes: Share of the images for which it gives another class, each as likely.
        cannot_tell: Share of the images that it cannot tell.
        seconds: That an answer takes.
        session: After so many answers it goes home, and the run ends with exit code 75.
        labels: A CSV file with the columns ``file`` and ``label``; left out, the data set's labels.
        seed: Of its errors.
    """

    simulates = True
    knows_w_alone = True

    def __init__(
        self,
        mistakes: float = 0.0,
        cannot_tell: float = 0.0,
        seconds: float = 0.0,
        session: int | None = None,
        labels: str | None = None,
        seed: int = 0,
    ) -> None:
        for name, share in (("mistakes", mistakes), ("cannot_tell", cannot_tell)):
            if not 0 <= share <= 1:
                raise SettingError(f"--data.oracle.{name}: {share} is no share from 0 to 1.")
        self.mistakes, self.cannot_tell, self.seconds = mistakes, cannot_tell, seconds
        self.session, self.seed = session, seed
        self.by_file: dict[str, str] | None = None
        if labels is not None:
            try:
                with Path(labels).expanduser().open(encoding="utf-8", newline="") as file:
                    self.by_file = {row["file"]: row["label"] for row in csv.DictReader(file)}
            except (OSError, KeyError, ValueError) as error:
                raise SettingError(
                    f"--data.oracle.labels: {labels} is no CSV file with the columns file and "
                    f"label ({error})."
                ) from error

    def answer(self, question: Question) -> Iterator[Answer]:
        """Answer one image after the other.

        Raises:
            NotYet: At the end of its session.
            SettingError: If it knows no label of an image.
        """
        for count, index in enumerate(question.indices.tolist()):
            if self.session is not None and count >= self.session:
                raise NotYet(f"the simulated person goes home after {self.session} answers.")
            if self.seconds:
                time.sleep(self.seconds)
            file = question.files[count] if question.files else None
            yield Answer(index, self._label(index, file, question.classes))

    def _label(self, index: int, file: str | None, classes: list[str]) -> Label:
        if self.by_file is not None:
            name = self.by_file.get(file or "")
            label = classes.index(name) if name in classes else -1
        else:
            label = -1 if self.source is None else int(self.source.train.labels[index])
        if label < 0:
            raise SettingError(
                f"--data.oracle: the simulated person knows no class of {file or f'image {index}'}."
                " Give --data.oracle.labels with all files, and --data.source.classes."
            )
        generator = make_generator(self.seed, index, Purpose.MISTAKES)
        luck, other = torch.rand(2, generator=generator).tolist()
        if luck < self.cannot_tell:
            return CANNOT_TELL
        if luck < self.cannot_tell + self.mistakes:
            return (label + 1 + int(other * (len(classes) - 1))) % len(classes)
        return label
