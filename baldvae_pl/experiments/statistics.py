"""Statistics of a comparison: pure functions from one table of rounds to tables.

The table has a row a round with the columns ``method``, ``seed``, ``labelled``, ``test_acc`` (0 to
1), ``generated`` and whatever else `rounds.csv` holds. A curve is the accuracy of one method and
seed against the number of labels.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 9999


def curves(rounds: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return each method's curves: a row a number of labels, a column a seed.

    Methods that begin with all labels are no curves; see `ceiling`.
    """
    table = rounds[~rounds["method"].isin(of_all_labels(rounds))]
    return {
        str(method): part.pivot_table("test_acc", "labelled", "seed")
        for method, part in table.groupby("method", sort=False)
    }


def of_all_labels(rounds: pd.DataFrame) -> list[str]:
    """Return the methods that have all labels from the beginning."""
    least_unlabelled = rounds.groupby("method")["unlabelled"].max()
    return [str(method) for method in least_unlabelled.index[least_unlabelled == 0]]


def ceiling(rounds: pd.DataFrame) -> float | None:
    """Return the mean accuracy of training on all of W, if there is such a run."""
    found = rounds[rounds["method"].isin(of_all_labels(rounds))]
    return float(found["test_acc"].mean()) if len(found) else None


def unfinished(rounds: pd.DataFrame) -> pd.Series:
    """Return the runs whose curves end before the longest one, each with its last label count.

    Against the others they would be measured on another range.
    """
    table = rounds[~rounds["method"].isin(of_all_labels(rounds))]
    last = table.groupby(["method", "seed"])["labelled"].max()
    return last[last < last.max()]


def finished(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return the rounds of all runs but the unfinished ones."""
    runs = pd.MultiIndex.from_frame(rounds[["method", "seed"]])
    return rounds[~runs.isin(unfinished(rounds).index)]


def interval(values: np.ndarray) -> float:
    """Return the half width of the 95 % interval of the mean, by Student's t; NaN for one value."""
    if len(values) < 2:
        return float("nan")
    spread = values.std(ddof=1) / len(values) ** 0.5
    return float(stats.t.ppf(0.975, len(values) - 1) * spread)


def label_counts(rounds: pd.DataFrame, count: int = 5) -> list[int]:
    """Return so many numbers of labels, evenly spread over those that every method has."""
    common = sorted(set.intersection(*(set(curve.index) for curve in curves(rounds).values())))
    chosen = np.linspace(0, len(common) - 1, min(count, len(common))).round().astype(int)
    return [int(common[i]) for i in chosen]


def levels(rounds: pd.DataFrame, count: int = 3) -> list[float]:
    """Return the highest round accuracies, in percent, that any run reached."""
    best = 100 * max(table.max(axis=None) for table in curves(rounds).values())
    return [level for level in (*range(10, 91, 10), 95, 97, 98, 99) if level <= best][-count:]


def labels_needed(curve: pd.Series, accuracy: float) -> float:
    """Return the first number of labels whose accuracy is that high, infinity if there is none."""
    reached = curve.index[curve >= accuracy]
    return float(reached[0]) if len(reached) else float("inf")


def median_labels_needed(table: pd.DataFrame, accuracy: float) -> str:
    """Return the median over seeds, a run that did not get there counting as later than all.

    What was there at the start may have needed fewer.
    """
    needed = np.array([labels_needed(table[seed].dropna(), accuracy) for seed in table])
    reached = int(np.isfinite(needed).sum())
    middle = np.median(needed)
    text = f"{middle:.0f}" if np.isfinite(middle) else f"> {table.index[-1]}"
    text = f"≤ {text}" if middle == table.index[0] else text
    return text if reached == len(needed) else f"{text} ({reached} of {len(needed)} runs)"


def mean_accuracy(curve: pd.Series) -> float:
    """Return the area under the curve by the trapezoid rule, divided by its width."""
    area = np.trapezoid(curve.to_numpy(), curve.index.to_numpy())
    return float(area / (curve.index[-1] - curve.index[0]))


def largest_drop(curve: pd.Series) -> float:
    """Return by how much the accuracy falls at most from one point to the next; 0 if never."""
    return max(0.0, float(-curve.diff().min())) if len(curve) > 1 else 0.0


def measures(rounds: pd.DataFrame, labels: Sequence[int]) -> pd.DataFrame:
    """Measure each run: a row a method and seed, accuracies in percent."""
    rows = []
    for method, table in curves(rounds).items():
        last = rounds[rounds["method"] == method].groupby("seed")["generated"].max()
        for seed in table:
            curve = table[seed].dropna()
            at = {f"at {n:,}": 100 * curve.get(n, float("nan")) for n in labels}
            whole = {"mean": 100 * mean_accuracy(curve)} if len(curve) > 1 else {}
            rows.append(
                {"method": method, "seed": seed}
                | at
                | whole
                | {"largest drop": 100 * largest_drop(curve), "complements": last[seed]}
            )
    return pd.DataFrame(rows)


def per_method(
    rounds: pd.DataFrame, labels: Sequence[int], levels: Sequence[float]
) -> pd.DataFrame:
    """Return a row a method: means over seeds ± 95 % interval, labels needed for each level."""
    found = measures(rounds, labels)
    rows = []
    for method, table in curves(rounds).items():
        mine = found[found["method"] == method]
        row: dict[str, object] = {"method": method, "seeds": len(mine)}
        for column in mine.columns[2:]:
            values = mine[column].dropna().to_numpy()
            if column == "complements":
                digits = 1 if values.mean() < 10 else 0
                row[column] = f"{values.mean():,.{digits}f}".removesuffix(".0")
            elif column == "largest drop":
                row["largest drop (mean, worst)"] = f"{values.mean():.2f}, {values.max():.2f}"
            elif len(values) > 1:
                row[f"{column} (%)"] = f"{values.mean():.2f} ± {interval(values):.2f}"
            else:
                row[f"{column} (%)"] = f"{values.mean():.2f}" if len(values) else ""
        for level in levels:
            row[f"labels for {level:.4g} %"] = median_labels_needed(table, level / 100)
        rows.append(row)
    return pd.DataFrame(rows)


def differences(
    rounds: pd.DataFrame, labels: Sequence[int], pairs: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """Return how much one method differs from another, seed by seed.

    A row a pair and measure: the mean difference in percentage points with its 95 % interval
    (bootstrap over seeds, percentiles), and the p of Wilcoxon's signed-rank test, as it is and
    corrected for all rows (Holm 1979). The first point of the curves is left out: no method has
    done anything before it.

    Args:
        rounds: The table of rounds.
        labels: Numbers of labels to compare at.
        pairs: (method, the one that is subtracted).
    """
    first = rounds["labelled"].min()
    found = measures(rounds, [count for count in labels if count > first])
    found = found.drop(columns="complements").set_index(["method", "seed"])
    rows = []
    for method, subtracted in pairs:
        # Rounded, as differences that are equal must be ties in Wilcoxon's test.
        of_seeds = (found.loc[method] - found.loc[subtracted]).round(9)
        for measure in of_seeds:
            d = of_seeds[measure].dropna().to_numpy()
            if len(d) > 0:
                low, high = bootstrap(d)
                p = signed_rank(d)
                rows.append([method, subtracted, measure, len(d), d.mean(), low, high, p])
    columns = ["method", "from", "measure", "seeds", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table["p corrected"] = holm(table["p"].to_numpy(dtype=float))
    return table


def wins(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return the share of pairs of runs in which a method, a row, is above another, a column.

    By mean accuracy over the curve, paired by configuration and seed; a tie counts half. NaN on the
    diagonal, and where two have no seed in common. Runs that ended before the others are left out,
    and of runs of one round nothing is left. The table has a column ``config``, too.
    """
    found = [
        measures(finished(part), []).assign(config=config)
        for config, part in rounds.groupby("config", sort=False)
        if curves(part)
    ]
    if not any("mean" in table for table in found):  # of one round there is no curve
        return pd.DataFrame()
    table = pd.concat(found).pivot_table("mean", ["config", "seed"], "method", sort=False)
    values = table.to_numpy()
    apart = (values[:, :, None] - values[:, None, :]).round(9)
    pairs = (~np.isnan(apart)).sum(0)
    won = np.nansum((np.sign(apart) + 1) / 2, axis=0)
    share = np.divide(won, pairs, out=np.full(won.shape, np.nan), where=pairs > 0)
    np.fill_diagonal(share, np.nan)
    return pd.DataFrame(share, index=table.columns, columns=table.columns)


def bootstrap(d: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean, the same at every call; NaN for one value."""
    if len(d) < 2:
        return float("nan"), float("nan")
    found = stats.bootstrap((d,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def signed_rank(d: np.ndarray) -> float:
    """Return the two-sided p of Wilcoxon's test that differences are symmetric about 0."""
    return float(stats.wilcoxon(d).pvalue) if d.any() else 1.0


def holm(p: np.ndarray) -> np.ndarray:
    """Return p values corrected so that all together err in 5 % of cases at most (Holm 1979)."""
    order = p.argsort()
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    corrected = np.empty_like(p)
    corrected[order] = stepped
    return corrected
