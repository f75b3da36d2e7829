"""What the benchmarks call a regression."""

from pathlib import Path

import pandas as pd
import pytest
from regression import RATIOS, regressions

RESULTS = Path(__file__).parents[1] / "docs" / "results"


@pytest.mark.parametrize("name", sorted(RATIOS))
def test_a_ratio_may_be_a_fifth_worse(name: str) -> None:
    before = pd.read_csv(RESULTS / f"speed_{name}.csv")
    ratio = RATIOS[name]
    found = {}
    for factor in (0.5, 0.9, 1.1, 2.0):
        now = before.assign(**{ratio.column: before[ratio.column] * factor})
        found[factor] = regressions(name, before, now)
    worse = 0.5 if ratio.more_is_better else 2.0
    ways = before["way"] if "way" in before else pd.Series([""] * len(before))
    assert len(found.pop(worse)) == sum(way.startswith(ratio.ways) for way in ways) > 0
    assert list(found.values()) == [[], [], []]


def test_other_rows_are_not_compared() -> None:
    before = pd.read_csv(RESULTS / "speed_scoring.csv")
    with pytest.raises(ValueError, match="rows are not those"):
        regressions("scoring", before, before.iloc[::-1].reset_index(drop=True))


def test_a_table_without_ratios_is_left_alone() -> None:
    before = pd.read_csv(RESULTS / "speed_pools.csv")
    assert regressions("pools", before, before * 2) == []
