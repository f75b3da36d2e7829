"""Figures and tables of finished runs, made from their CSV files alone."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import pandas as pd
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # draws without a display

from baldvae_pl.errors import SettingError
from baldvae_pl.experiments import statistics
from baldvae_pl.experiments.arguments import GATHERED
from baldvae_pl.reports import figures
from baldvae_pl.reports.page import drawn, filled, part
from baldvae_pl.runs.files import replacing
from baldvae_pl.runs.folder import FIRST_ROUND, RUNS, Identity, RunFolder
from baldvae_pl.runs.settings import first_difference, load_settings
from baldvae_pl.runs.tables import read_rounds

COLUMNS = [
    *("config", "method", "seed", "round", "labelled", "unlabelled", "generated", "complemented"),
    *("test_acc", "test_nll", "test_ece", "test_acc_mc", "test_nll_mc", "test_ece_mc"),
    *("bald_threshold", "bald_margin", "acquired_redundancy"),
]
OF_ANSWERS = ["acquired", "answers_cannot_tell"]
"""Columns of runs in which not all that is asked can be told."""

EXPLANATION = """\
± is the 95 % interval of the mean over seeds (Student's t). *Mean* is the area under the curve \
divided by its width; *largest drop* by how many points the accuracy falls at most from one number \
of labels to the next. In the figure lines are means over seeds, and bands reach from the lowest \
to the highest.
"""
CONTROL = ("bald_vae", "duplicate")
"""If complements do no better than copies of their images, the VAE is not the cause of a gain."""


def write(
    source: Path,
    out: Path,
    baseline: str,
    labels: Sequence[int] | None = None,
    levels: Sequence[float] | None = None,
) -> None:
    """Write ``report.md`` and ``report.html``, tables and figures of all runs below a folder.

    Args:
        source: The folder, or the table of all rounds that a report has left.
        out: Where to write.
        baseline: Method that the others are compared to.
        labels: Numbers of labels to compare at; left out, five.
        levels: Accuracies to be reached, in percent; left out, the highest three that are round
            and were reached.

    Raises:
        SettingError: If there is nothing to report.
    """
    rounds = read(source)
    with replacing(out / GATHERED, "w", newline="", encoding="utf-8") as file:
        rounds.to_csv(file, index=False)
    text, summaries, differences = ["# Comparison\n"], [], []
    parts: list[dict[str, Any]] = []
    for config, of_config in rounds.groupby("config", sort=False):
        text.append(f"## {config}\n")
        top = statistics.ceiling(of_config)
        said = [] if top is None else [f"Trained on all of W: {top:.2%}."]
        if not statistics.curves(of_config):
            text += [f"{sentence}\n" for sentence in said]
            continue
        for (method, seed), last in statistics.unfinished(of_config).items():
            run = of_config[(of_config["method"] == method) & (of_config["seed"] == seed)]
            how = f"which ends at {last:,} labels{unanswered(run)}"
            said.append(f"Left out: {method} with seed {seed}, {how}.")
        of_config = statistics.finished(of_config)
        counts = labels or statistics.label_counts(of_config)
        accuracies = levels or statistics.levels(of_config)
        found = statistics.per_method(of_config, counts, accuracies)
        against = statistics.differences(
            of_config, counts, compared_pairs(list(found["method"]), baseline)
        )
        text += [f"{sentence}\n" for sentence in said]
        draw(of_config, str(config), out / f"{config}")
        summaries.append(found.assign(config=config))
        differences.append(against.assign(config=config))
        text += [f"![Accuracy against number of labels]({config}.png)\n"]
        explained = explain(against, baseline)
        text += [found.to_markdown(index=False), "", EXPLANATION, *explained]
        words = [*said, EXPLANATION.replace("*", ""), explained[0]]
        parts.append(page_part(of_config, str(config), words, found, against))
        if any(source.rglob("rounds.csv")):  # TensorBoard shows them beside the runs
            log_hyperparameters(of_config, str(config), counts, accuracies, out / "hparams")
    for name, tables in (("summary", summaries), ("differences", differences)):
        with replacing(out / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            (pd.concat(tables) if tables else pd.DataFrame()).round(4).to_csv(file, index=False)
    with replacing(out / "report.md", "w", encoding="utf-8") as file:
        file.write("\n".join(text))
    with replacing(out / "report.html", "w", encoding="utf-8") as file:
        file.write(page(rounds, parts, source, out))


def page(rounds: pd.DataFrame, parts: list[dict[str, Any]], source: Path, out: Path) -> str:
    """Return a comparison as one page, see `baldvae_pl.reports.page`.

    Args:
        rounds: Of all runs.
        parts: A configuration each.
        source: Where the runs are, if they are there.
        out: Where the page will be.
    """
    methods, seeds = rounds["method"].nunique(), rounds["seed"].nunique()
    configs = ", ".join(map(str, rounds["config"].unique()))
    numbers = [("methods", f"{methods}"), ("seeds", f"{seeds}")]
    numbers.append(("runs", f"{rounds.groupby(['config', 'method', 'seed']).ngroups}"))
    share = statistics.wins(rounds)
    if len(share) > 1:
        text = (
            "In how many percent of the pairs, runs of one configuration and seed, the method on "
            "the left has the higher mean accuracy over the curve; a tie counts half."
        )
        chart = drawn(figures.wins(share), text)
        parts = [*parts, part("wins", "Who wins", text, figures=[chart])]
    pages = sorted(source.rglob("report.html")) if source.is_dir() else []
    pages = [path for path in pages if RunFolder(path.parent).rounds.is_file()]
    if pages:
        links = [
            f'<p><a href="{quote(Path(os.path.relpath(path, out)).as_posix())}">'
            f"{escape(path.parent.relative_to(source).as_posix())}</a></p>"
            for path in pages
        ]
        parts = [*parts, part("runs", "Runs", tables=links)]
    return filled("Comparison", configs, numbers, parts)


def page_part(
    rounds: pd.DataFrame,
    config: str,
    words: Sequence[str],
    found: pd.DataFrame,
    against: pd.DataFrame,
) -> dict[str, Any]:
    """Return the part of the page that a configuration has."""
    figure, (axis,) = figures.new(7, 4)
    draw_curves(axis, rounds, config)
    at_the_end = {method: c.iloc[-1].mean() for method, c in statistics.curves(rounds).items()}
    best = max(at_the_end, key=lambda method: at_the_end[method])
    alt = f"Test accuracy against labels, {len(found)} methods. The highest at the end: {best}."
    options: dict[str, Any] = {"index": False, "border": 0, "na_rep": ""}
    tables = [found.to_html(**options)]
    folded = []
    if not against.empty:
        folded.append(("Differences, in points", against.round(3).to_html(**options)))
    name = f"config-{config}"
    chart = drawn(figure, alt)
    return part(name, config, *words, figures=[chart], tables=tables, folded=folded)


def read(source: Path) -> pd.DataFrame:
    """Return the rounds of all runs, in the same order whichever ended first.

    Each run says in its ``run.json`` which it is. Of several runs alike the newest counts, and
    those with other settings than the newest of their name are left out.

    Raises:
        SettingError: If there are none.
    """
    found: dict[tuple[str, str, int], pd.DataFrame] = {}
    newest: dict[tuple[str, str], dict[str, Any]] = {}  # settings by configurations and method
    tables = sorted(source.rglob("rounds.csv"), key=lambda path: -path.stat().st_mtime)
    for table in tables:
        if table.absolute().match(f"{FIRST_ROUND}/{RUNS}/*/*/*"):
            continue  # which is a part of others
        run = RunFolder(table.parent)
        try:
            read_rounds(table)
            saved = load_settings(run.config) if run.config.is_file() else None
        except SettingError as error:
            print(f"left out: {error}")
            continue
        identity = run.read_identity() or guess(run)
        config, method, seed = "+".join(identity.configs), identity.method, identity.seed
        if saved is not None:
            saved.pop("seed_everything", None)
            if other := first_difference(newest.setdefault((config, method), saved), saved):
                print(f"left out, as its --{other} is not that of the newest one: {run.path}")
                continue
        rounds = pd.read_csv(table).assign(config=config, method=method, seed=seed)
        asked = OF_ANSWERS if OF_ANSWERS[-1] in rounds else []
        found.setdefault((config, method, seed), rounds.reindex(columns=[*COLUMNS, *asked]))
    gathered = source / GATHERED if source.is_dir() else source
    if not found and gathered.is_file():
        try:
            rounds = pd.read_csv(gathered)
        except ValueError as error:  # pandas' and Python's for what is no table, or no text
            raise SettingError(
                f"source: {gathered} is damaged ({error}). Make it anew from the runs."
            ) from error
        if missing := {*COLUMNS} - {*rounds.columns}:
            raise SettingError(
                f"source: {gathered} has no column {min(missing)}, so it is not the {GATHERED} "
                "of a report. Name one, or a folder that holds runs."
            )
        return rounds
    if not found:
        raise SettingError(
            f"source: there is no rounds.csv in {source}. Name a folder that holds runs, such as "
            "lightning_logs."
        )
    return pd.concat(found.values()).sort_values(["config", "method", "seed", "round"])


def unanswered(run: pd.DataFrame) -> str:
    """Return how much of what a run has asked nobody could tell; nothing if all was told."""
    if OF_ANSWERS[-1] not in run or not (nobody := int(run[OF_ANSWERS[-1]].sum())):
        return ""
    asked = nobody + int(run["acquired"].sum())
    return f": of {asked:,} images that it asked about nobody could tell {nobody:,}"


def guess(run: RunFolder) -> Identity:
    """Guess which run it is, for one of a version that did not say so.

    Of the configurations in the name of its folder the last one is taken for the method, and its
    seed is that of ``config.yaml``, or k in ``version_<k>``.
    """
    *configs, last = run.experiment.split("+")
    configs, method = (configs, last) if configs else ([last], "bald_vae")
    seed = run.version
    if run.config.is_file():
        seed = load_settings(run.config).get("seed_everything", seed)
    return Identity(configs, method, seed)


def compared_pairs(methods: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """Pair each method with the baseline, and BALD-VAE with its control."""
    pairs = [(method, baseline) for method in methods if baseline in methods and method != baseline]
    if {*CONTROL} <= {*methods} and CONTROL not in pairs:
        pairs.append(CONTROL)
    return pairs


def explain(differences: pd.DataFrame, baseline: str) -> list[str]:
    """Return the differences as a table, and how to read it."""
    if differences.empty:
        return [f"No differences, as there is no other method than {baseline}, or none with it.\n"]
    seeds, count = int(differences["seeds"].max()), len(differences)
    if seeds == 1:
        return [
            f"Differences from {baseline} in percentage points. With one seed nothing says how "
            "much of them is chance.\n",
            differences.iloc[:, [0, 1, 2, 4]].round(3).to_markdown(index=False),
            "",
        ]
    least = 2.0 ** (1 - seeds)
    others = ""
    if CONTROL[1] in set(differences["from"]):
        others = f", and of {CONTROL[0]} from {CONTROL[1]},"
    return [
        f"Differences from {baseline}{others} at equal seeds, in percentage points, with the 95 % "
        "interval of the mean (bootstrap), and the p of "
        f"Wilcoxon's signed-rank test, as it is and corrected for these {count} comparisons "
        f"(Holm). With {seeds} seeds no p can be below {least:.3g}, nor below "
        f"{min(1.0, count * least):.3g} when corrected, and bootstrap intervals are too narrow.\n",
        differences.round(3).to_markdown(index=False),
        "",
    ]


def draw(rounds: pd.DataFrame, title: str, path: Path) -> None:
    """Draw the curves of a configuration as PNG and SVG, the same bytes at every call."""
    with mpl.rc_context({"svg.hashsalt": "baldvae", "font.size": 9}):
        figure = Figure(figsize=(5.5, 3.6), layout="constrained")
        draw_curves(figure.subplots(), rounds, title)
        for ending, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
            with replacing(path.with_name(f"{path.name}.{ending}")) as file:
                figure.savefig(file, format=ending, **options)


def draw_curves(axis: Axes, rounds: pd.DataFrame, title: str) -> None:
    """Draw mean curves, bands that hold all seeds, and a line for training on all of W.

    An interval of the mean would hide what it is made of where there are few seeds, and with two
    of them be as high as the figure.

    A method has the same colour, marker and line in every figure.
    """
    for method, table in statistics.curves(rounds).items():
        style, mean = figures.style_of(method), 100 * table.mean(axis=1)
        axis.plot(table.index, mean, ms=3, lw=1, label=figures.plain(method), **style)
        low, high = 100 * table.min(axis=1), 100 * table.max(axis=1)
        axis.fill_between(table.index, low, high, color=style["color"], alpha=0.15, lw=0)
    top = statistics.ceiling(rounds)
    if top is not None:
        axis.axhline(100 * top, color="grey", ls="--", lw=1, label="all of W")
    axis.set(xlabel="labels", ylabel="test accuracy (%)", title=figures.plain(title))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)


def log_hyperparameters(
    rounds: pd.DataFrame, config: str, counts: Sequence[int], levels: Sequence[float], folder: Path
) -> None:
    """Leave what each run of a configuration amounts to for TensorBoard's HParams."""
    # TensorBoard's own writer; torch's would take seconds to import.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import summary_v2 as hparams
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    curves = statistics.curves(rounds)
    for row in statistics.measures(rounds, counts).to_dict("records"):
        chosen = {"config": config, "method": row.pop("method"), "seed": row.pop("seed")}
        curve = curves[chosen["method"]][chosen["seed"]].dropna()
        for level in levels:
            row[f"labels for {level:.4g} %"] = statistics.labels_needed(curve, level / 100)
        name = f"{config}+{chosen['method']}_{chosen['seed']}"
        for old in (folder / name).glob("events.*"):
            old.unlink()
        values = {f"compare/{key}": float(value) for key, value in row.items()}
        summaries = [
            hparams.hparams_config_pb(
                hparams=[hparams.HParam(key) for key in chosen],
                metrics=[hparams.Metric(tag) for tag in values],
            ),
            hparams.hparams_pb(chosen, trial_id=name),
            Summary(value=[Summary.Value(tag=tag, simple_value=x) for tag, x in values.items()]),
        ]
        writer = EventFileWriter(str(folder / name))
        for summary in summaries:
            writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
        writer.close()
