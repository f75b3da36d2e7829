"""Oracles: who answers which class an image is.

An oracle is an `Oracle`, which gets the whole question and answers as it likes: all at once, one
image at a time, "cannot tell", a correction of an earlier answer, or "not yet". Where labels are
simply known, a plain function from global indices to labels will do, both int64, shape (n,).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from torch import Tensor

CANNOT_TELL: Literal["cannot tell"] = "cannot tell"
WITHDRAWN: Literal["withdrawn"] = "withdrawn"

Label = int | Literal["cannot tell", "withdrawn"]


class Question(NamedTuple):
    """Images whose classes are asked for.

    Attributes:
        round: The first round that trains with the answers; 0 for the first labels.
        indices: Global indices in W, the first choice first; an image that is not in W has a
            negative one, which no other image of the run has.
        images: The images as W holds them, index by index.
        classes: Names of the classes; a label is a position in it.
        files: Names of the images, if they have names; empty for an image that is not in W.
        scores: BALD scores in nats; None for the first labels, when there is no classifier yet.
        probs_K_C: The classifier's mean prediction; None likewise.
    """

    round: int
    indices: Tensor
    images: Tensor
    classes: list[str]
    files: list[str] | None = None
    scores: Tensor | None = None
    probs_K_C: Tensor | None = None  # noqa: N815


class Answer(NamedTuple):
    """One answer.

    Attributes:
        image: One of the question's indices, or that of an image bought earlier, to correct it.
        label: A class; ``CANNOT_TELL``: the image leaves U without entering L; ``WITHDRAWN``: it is
            as if the image had not been answered.
    """

    image: int
    label: Label


class NotYet(Exception):  # noqa: N818 (no error: the run ends and goes on later)
    """Raised by an oracle that has no answer yet. The run ends; what was answered is kept.

    When it goes on, the same oracle is asked for the images that are left.
    """


class Oracle(ABC):
    """Answers questions. Options of a subclass are the parameters of its ``__init__``."""

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
