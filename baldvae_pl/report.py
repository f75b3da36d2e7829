"""`baldvae report`: figures and tables of finished runs, made from their CSV files alone."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # draws without a display

from baldvae_pl import summary
from baldvae_pl.files import replacing
from baldvae_pl.runs import number_of
from baldvae_pl.settings import SettingError

GATHERED = "runs.csv"
"""All rounds of all runs: what everything else is made of."""

COLUMNS = [
    *("config", "method", "seed", "round", "labelled", "unlabelled", "generated", "complemented"),
    *("test_acc", "test_nll", "test_ece", "test_acc_mc", "test_nll_mc", "test_ece_mc"),
    *("bald_threshold", "bald_margin", "acquired_redundancy"),
]
LEVELS = (90.0, 95.0, 97.0)


def main(args: Sequence[str]) -> None:
    """Parse the command line and make the report."""
    parser = argparse.ArgumentParser("baldvae report", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "source", type=Path, help=f"folder with runs, at any depth, or a {GATHERED} of a report"
    )
    parser.add_argument("--out", type=Path, help="folder of the report (default: the source's)")
    parser.add_argument("--baseline", default="bald_o", help="method that others are compared to")
    parser.add_argument("--labels", type=int, nargs="+", help="numbers of labels to compare at")
    parser.add_argument(
        "--accuracies", type=float, nargs="+", default=LEVELS, help="to be reached, in percent"
    )
    chosen = parser.parse_args(args)
    out = chosen.out or (chosen.source if chosen.source.is_dir() else chosen.source.parent)
    report(chosen.source, out, chosen.baseline, chosen.labels, chosen.accuracies)
    print((out / "report.md").read_text())


def report(
    source: Path,
    out: Path,
    baseline: str,
    labels: Sequence[int] | None = None,
    levels: Sequence[float] = LEVELS,
) -> None:
    """Write ``report.md``, tables and figures of all runs below a folder.

    Args:
        source: The folder, or the table of all rounds that a report has left.
        out: Where to write.
        baseline: Method that the others are compared to.
        labels: Numbers of labels to compare at; left out, five.
        levels: Accuracies to be reached, in percent.

    Raises:
        SettingError: If there is nothing to report.
    """
    rounds = read(source)
    with replacing(out / GATHERED, "w", newline="") as file:
        rounds.to_csv(file, index=False)
    text, summaries, differences = ["# Comparison\n"], [], []
    methods = [str(method) for method in rounds["method"].unique()]
    for config, part in rounds.groupby("config", sort=False):
        text.append(f"## {config}\n")
        top = summary.ceiling(part)
        if top is not None:
            text.append(f"Trained on all of W: {top:.2%}.\n")
        if not summary.curves(part):
            continue
        counts = labels or summary.label_counts(part)
        found = summary.summary(part, counts, levels)
        against = summary.differences(part, counts, baseline)
        draw(part, str(config), methods, out / f"{config}")
        summaries.append(found.assign(config=config))
        differences.append(against.assign(config=config))
        text += [f"![Accuracy against number of labels]({config}.png)\n"]
        text += [found.to_markdown(index=False), "", *explain(against, baseline)]
    for name, tables in (("summary", summaries), ("differences", differences)):
        with replacing(out / f"{name}.csv", "w", newline="") as file:
            (pd.concat(tables) if tables else pd.DataFrame()).round(4).to_csv(file, index=False)
    with replacing(out / "report.md", "w") as file:
        file.write("\n".join(text))
    if any(source.rglob("rounds.csv")):  # TensorBoard shows them beside the runs
        log_hyperparameters(rounds, out / "hparams")


def read(source: Path) -> pd.DataFrame:
    """Return the rounds of all runs, in the same order whichever ended first.

    A run lies in ``<configs>/version_<k>/``; of its configs, the last one names the method. The
    seed is that of its ``config.yaml``, k without one; of several runs alike, the newest counts.

    Raises:
        SettingError: If there are none.
    """
    if source.is_file():
        return pd.read_csv(source)
    found = {}
    tables = sorted(source.rglob("rounds.csv"), key=lambda path: path.stat().st_mtime)
    for table in tables:
        config, _, method = table.parent.parent.name.rpartition("+")
        settings = table.with_name("config.yaml")
        saved = yaml.safe_load(settings.read_text()) if settings.is_file() else {}
        seed = saved.get("seed_everything", number_of(table.parent))
        named = {"config": config or method, "method": method if config else "bald_vae"}
        rounds = pd.read_csv(table).assign(**named, seed=seed)
        found[named["config"], named["method"], seed] = rounds.reindex(columns=COLUMNS)
    if not found and (source / GATHERED).is_file():
        return pd.read_csv(source / GATHERED)
    if not found:
        raise SettingError(
            f"source: there is no rounds.csv in {source}. Name a folder that holds runs, such as "
            "lightning_logs."
        )
    return pd.concat(found.values()).sort_values(["config", "method", "seed", "round"])


def explain(differences: pd.DataFrame, baseline: str) -> list[str]:
    """Return the differences as a table, and how to read it."""
    if differences.empty:
        return []
    seeds = int(differences["seeds"].max())
    return [
        f"Differences from {baseline} at equal seeds, in percentage points, with the 95 % interval "
        "of the mean (bootstrap), and the p of Wilcoxon's signed-rank test, as it is and corrected "
        f"for these {len(differences)} comparisons (Holm). With {seeds} seeds no p can be below "
        f"{2.0 ** (1 - seeds):.3g}, and bootstrap intervals are too narrow.\n",
        differences.round(3).to_markdown(index=False),
        "",
    ]


def draw(rounds: pd.DataFrame, title: str, methods: Sequence[str], path: Path) -> None:
    """Draw the curves of a configuration as PNG and SVG, the same bytes at every call."""
    with mpl.rc_context({"svg.hashsalt": "baldvae", "font.size": 9}):
        figure = Figure(figsize=(5.5, 3.6), layout="constrained")
        draw_curves(figure.subplots(), rounds, title, methods)
        for ending, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
            with replacing(path.with_name(f"{path.name}.{ending}")) as file:
                figure.savefig(file, format=ending, **options)


def draw_curves(axis: Axes, rounds: pd.DataFrame, title: str, methods: Sequence[str]) -> None:
    """Draw mean curves with their 95 % intervals, and a line for training on all of W.

    A method's colour, marker and line follow from its place in ``methods``.
    """
    for method, table in summary.curves(rounds).items():
        number = methods.index(method)
        mean = 100 * table.mean(axis=1)
        width = 100 * table.apply(lambda row: summary.interval(row.dropna().to_numpy()), axis=1)
        style = f"C{number % 10}" + "os^vDPX*<>hd"[number % 12] + ("-", "--", "-.", ":")[number % 4]
        axis.plot(table.index, mean, style, ms=3, lw=1, label=method)
        axis.fill_between(
            table.index, mean - width, mean + width, color=f"C{number % 10}", alpha=0.15, lw=0
        )
    top = summary.ceiling(rounds)
    if top is not None:
        axis.axhline(100 * top, color="grey", ls="--", lw=1, label="all of W")
    axis.set(xlabel="labels", ylabel="test accuracy (%)", title=title)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)


def log_hyperparameters(rounds: pd.DataFrame, folder: Path) -> None:
    """Leave what each run amounts to for TensorBoard's HParams."""
    from torch.utils.tensorboard import SummaryWriter

    for config, part in rounds.groupby("config", sort=False):
        if not summary.curves(part):
            continue
        found = summary.measures(part, summary.label_counts(part)[-1:])
        for row in found.to_dict("records"):
            chosen = {"config": str(config), "method": row.pop("method"), "seed": row.pop("seed")}
            name = f"{config}+{chosen['method']}_{chosen['seed']}"
            for old in (folder / name).glob("events.*"):
                old.unlink()
            with SummaryWriter(str(folder / name)) as writer:
                values = {f"compare/{key}": float(value) for key, value in row.items()}
                writer.add_hparams(chosen, values, run_name=".")
