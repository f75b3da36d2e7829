"""Whether a ratio of the committed tables has become worse."""

from typing import NamedTuple

import pandas as pd

ALLOWED = 0.2
"""Ratios of two runs of one machine differ by up to half as much."""


class Ratio(NamedTuple):
    """Which numbers of a table say how we compare with the alternatives of the same run.

    Attributes:
        column: Of the ratio.
        ways: How the rows that count begin; a table without ways has one.
        more_is_better: Else less is.
    """

    column: str
    ways: str | tuple[str, ...] = ""
    more_is_better: bool = True


RATIOS = {
    "scoring": Ratio("times one pass", "ours", more_is_better=False),
    "resnet18": Ratio("times one pass", "ours", more_is_better=False),
    "masks": Ratio("times ours", "masks"),
    "heads": Ratio("speed of ours"),
    "training": Ratio("speed of ours"),
    "experiment": Ratio("times ours", ("plain", "Baal")),
    "processes": Ratio("share"),
    "reading": Ratio("times ours", "each"),
    "start": Ratio("times ours", "plain"),
    "comparison": Ratio("times ours", "each"),
    "decoding": Ratio("speed, ours is 1", ("Pillow", "torchvision"), more_is_better=False),
}
"""Of the tables that have any."""


def regressions(name: str, before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Return a sentence for each ratio of a table that is worse by more than `ALLOWED`.

    Args:
        name: Of the table.
        before: As it is committed.
        now: As it is measured, with the same rows in the same order.

    Raises:
        ValueError: If the rows are others, so that nothing can be compared.
    """
    if name not in RATIOS:
        return []
    ratio = RATIOS[name]
    told_apart = [column for column in ("precision", "file", "way", "what") if column in before]
    if before[told_apart].to_numpy().tolist() != now[told_apart].to_numpy().tolist():
        raise ValueError(f"{name}: its rows are not those of the committed table, commit it anew")
    found = []
    for row, old, new in zip(
        before[told_apart].itertuples(index=False), before[ratio.column], now[ratio.column],
        strict=True,
    ):  # fmt: skip
        way = getattr(row, "way", "")
        worse = old / new if ratio.more_is_better else new / old
        if str(way).startswith(ratio.ways) and worse > 1 + ALLOWED:
            found.append(
                f"{name}, {', '.join(map(str, row)) or ratio.column}: {old} before, {new} now"
            )
    return found
