"""Whether more labels still pay."""

from collections.abc import Sequence

PATIENCE = 5
"""Rounds without a higher accuracy after which a hint is due."""


def has_flattened(accuracies: Sequence[float]) -> bool:
    """Whether the last rounds have not been better than the best before them.

    A hint and no proof: with few test images luck decides the best round.

    Args:
        accuracies: By round; those without test images left out.
    """
    before, last = accuracies[:-PATIENCE], accuracies[-PATIENCE:]
    return bool(before) and max(last) <= max(before)
