"""Oracles: callables from global indices to labels, both int64 tensors of shape (n,)."""

from collections.abc import Callable

from torch import Tensor

__all__: list[str] = []  # none has a short name: the data set's labels are the default

Oracle = Callable[[Tensor], Tensor]


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
