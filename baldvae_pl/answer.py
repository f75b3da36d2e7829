"""What may be answered to the question which class an image is."""

from typing import Literal, NamedTuple

CANNOT_TELL: Literal["cannot tell"] = "cannot tell"
"""Whoever answers does not know the class."""

WITHDRAWN: Literal["withdrawn"] = "withdrawn"
"""Whoever answers takes it back."""

Label = int | Literal["cannot tell", "withdrawn"]


class Answer(NamedTuple):
    """One answer.

    Attributes:
        image: One of the question's indices, or that of an image bought earlier, to correct it.
        label: A class; ``CANNOT_TELL``: the image leaves U without entering L; ``WITHDRAWN``: it is
            as if the image had not been answered.
    """

    image: int
    label: Label
