"""Figures of a run: each a function from its tables to a matplotlib figure; no display is needed.

Colours are those of Okabe and Ito (2008), which the colour-blind tell apart; where lines are many,
markers and dashes differ too.
"""

import io
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from baldvae_pl.runs.snapshots import Snapshot
from baldvae_pl.runs.tables import ROUND_COLUMNS

INK = "#123456"
"""Of texts and axes: becomes the colour of the page, light or dark."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GREY = "#7f7f7f"
MARKERS = "os^vDPX*<>h"
LINES = ("-", "--", "-.", ":")

KNOWN = (
    *("bald_o", "bald_vae", "random", "margin", "few_labels", "epig", "vae_all", "duplicate"),
    *("batch_bald", "power_bald", "softmax_bald", "learning_loss", "vae_acgan", "gaal"),
    *("asal", "bayesian_augmentation", "vaal", "affine_copy", "retrieval", "mixed"),
    *("most_uncertain", "max_entropy", "least_confidence", "variation_ratios", "mean_std"),
    *("softrank_bald", "badge", "k_center", "cluster_margin", "typical", "prob_cover"),
    *("joint", "labels_alone", "poisson_labels", "cifar10_features", "photos"),
)
"""Methods in the order in which they got their colour, marker and line."""

PHASES = [tag.removeprefix("seconds/") for tag in ROUND_COLUMNS if tag.startswith("seconds/")]


def style_of(method: str) -> dict[str, Any]:
    """Return colour, marker and line of a method: the same in every figure."""
    further = len(KNOWN) + zlib.crc32(method.encode()) % (132 - len(KNOWN))
    number = KNOWN.index(method) if method in KNOWN else further
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "ls": LINES[number % len(LINES)],
    }


def svg(figure: Figure) -> str:
    """Return a figure as an element of a page, the same text at every call."""
    for text in figure.findobj(Text):
        if text.get_color() == "black":  # legends and colour bars are not made by `new`
            text.set_color(INK)
    settings: Any = {"svg.hashsalt": "baldvae", "svg.fonttype": "none"}
    with mpl.rc_context(settings):
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    made = file.getvalue()
    return made[made.index("<svg") :].replace(INK, "currentColor")


def new(width: float = 6.4, height: float = 3.2, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its axes, in the ink of the page."""
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    ink: Any = {**dict.fromkeys(names, INK), "font.size": 9}
    with mpl.rc_context(ink):
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1))
        axes = figure.subplots(1, columns, squeeze=False)[0].tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def curve(rounds: pd.DataFrame) -> Figure:
    """Draw test accuracy against the number of labels, with its interval if it has one."""
    figure, (axis,) = new()
    x = rounds["labelled"]
    axis.plot(x, 100 * rounds["test_acc"], "o-", ms=4, color=COLOURS[0], label="dropout off")
    if rounds.get("test_acc_mc", pd.Series(dtype=float)).notna().any():
        averaged = 100 * rounds["test_acc_mc"]
        axis.plot(x, averaged, "s--", ms=3, lw=1, color=COLOURS[1], label="mean over the draws")
    if "test_acc_low" in rounds:
        low, high = 100 * rounds["test_acc_low"], 100 * rounds["test_acc_high"]
        axis.fill_between(x, low, high, alpha=0.15, lw=0, color=COLOURS[0], label="95 % interval")
    axis.set(xlabel="labels", ylabel="test accuracy (%)")
    legend_above(figure)
    return figure


def legend_above(figure: Figure) -> None:
    """Add a legend that covers nothing."""
    figure.legend(frameon=False, loc="outside upper left", ncols=3)


def uncertainty(rounds: pd.DataFrame) -> Figure:
    """Draw what decides: the threshold, and the highest and mean scores of U and L."""
    figure, (axis,) = new(height=3.6)
    lines = (
        ("bald_threshold", "threshold of complements", "o-", COLOURS[0]),
        ("bald_labelled_max", "highest labelled", "s-", COLOURS[1]),
        ("bald_labelled_mean", "mean labelled", "s:", COLOURS[1]),
        ("bald_unlabelled_max", "highest unlabelled", "^-", COLOURS[2]),
        ("bald_unlabelled_mean", "mean unlabelled", "^:", COLOURS[2]),
    )
    for column, label, style, colour in lines:
        axis.plot(rounds["labelled"], rounds[column], style, ms=4, color=colour, label=label)
    axis.set(xlabel="labels", ylabel="BALD (nats)", ylim=(0, None))
    legend_above(figure)
    return figure


def purchases(acquisitions: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Draw how many labels of each class every round has bought."""
    figure, (axis,) = new(height=min(8.0, 2.2 + 0.1 * len(classes)))
    counts = draw_purchases(axis, acquisitions, classes)
    if len(classes) <= 20 and counts.shape[1] <= 25:
        for row, column in np.argwhere(counts > 0):
            number = counts[row, column]
            ink = "#000000" if number > counts.max() / 2 else "#ffffff"
            axis.text(column, row, str(number), ha="center", va="center", color=ink, size=7)
    figure.colorbar(axis.images[0], label="labels").outline.set_visible(False)
    return figure


def draw_purchases(axis: Axes, acquisitions: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Draw the labels bought, a row a class and a column a round, and return their numbers."""
    bought = acquisitions[acquisitions["kind"] != "complement"]
    table = bought.pivot_table("index", "label", "round", aggfunc="count", fill_value=0)
    table = table.reindex(range(len(classes)), fill_value=0)
    counts: np.ndarray = table.to_numpy()
    axis.imshow(counts, cmap="cividis", aspect="auto", vmin=0)
    rows = range(0, len(classes), -(-len(classes) // 60))
    axis.set_yticks(rows, [short(classes[i]) for i in rows])
    ticks = range(0, counts.shape[1], -(-counts.shape[1] // 15))
    names = ["first" if round == 0 else str(round - 1) for round in table.columns]
    axis.set_xticks(ticks, [names[i] for i in ticks])
    axis.set(xlabel="bought after round", ylabel="class")
    axis.grid(visible=False)
    return counts


def progress(rounds: pd.DataFrame, acquisitions: pd.DataFrame, snapshot: Snapshot) -> Figure:
    """Draw labels bought and accuracy by class, and seconds by phase, in little time."""
    names, table = snapshot.classes, snapshot.confusion_C_C
    figure = Figure(figsize=(14, min(8.0, 3 + 0.1 * len(names))))
    bought, right, time = figure.subplots(1, 3, width_ratios=(3, 1, 3))
    counts = draw_purchases(bought, acquisitions, names)
    bought.set_title(f"labels bought, from 0 (dark) to {counts.max()} (bright)", size=10)
    share = 100 * table.diagonal() / table.sum(1).clip(min=1)
    right.barh(range(len(share)), share, color=COLOURS[0])
    right.set(xlabel="of the class right (%)", xlim=(0, 125), yticks=[], ylim=bought.get_ylim())
    right.set_title("test accuracy, mean over the draws", size=9)
    for row in np.flatnonzero(table.sum(1)) if len(names) <= 40 else []:
        right.text(share[row] + 1, row, f"{share[row]:.1f}", va="center", size=7)
    draw_seconds(time, rounds)
    time.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=8)
    return figure


def complements(rounds: pd.DataFrame) -> Figure:
    """Draw how many complements were made, and how uncertain they are beside their parents."""
    figure, (left, right) = new(columns=2)
    left.bar(rounds["labelled"], rounds["complemented"], width=width_of(rounds), color=COLOURS[2])
    left.set(xlabel="labels", ylabel="complements made")
    made = rounds[rounds["complemented"] > 0]
    lines = (
        ("complement_parent_bald", "parents, mean", "s-", COLOURS[1]),
        ("complement_bald", "complements, mean", "v--", COLOURS[3]),
        ("bald_threshold", "threshold of parents", "o-", COLOURS[0]),
    )
    for column, label, style, colour in lines:
        right.plot(made["labelled"], made[column], style, ms=4, color=colour, label=label)
    right.set(xlabel="labels", ylabel="BALD (nats)", ylim=(0, None), xlim=left.get_xlim())
    legend_above(figure)
    return figure


def confusion(snapshot: Snapshot) -> Figure:
    """Draw which class test images of each class were given, in percent of their class."""
    figure, (axis,) = new(5.6, 4.8)
    share = draw_confusion(axis, snapshot)
    if len(share) <= 20:
        for row, column in np.argwhere(share >= 0.5):
            ink = "#000000" if share[row, column] > 25 else "#ffffff"
            text = f"{share[row, column]:.0f}"
            axis.text(column, row, text, ha="center", va="center", color=ink, size=7)
    figure.colorbar(axis.images[0], label="% of the class (root scale)").outline.set_visible(False)
    return figure


def draw_confusion(axis: Axes, snapshot: Snapshot) -> np.ndarray:
    """Draw the confusion matrix and return it in percent of the rows."""
    table = snapshot.confusion_C_C
    names = snapshot.classes[: len(table)]  # others are of later rounds
    share: np.ndarray = 100 * table / table.sum(1, keepdims=True).clip(min=1)
    axis.imshow(share, cmap="cividis", norm=PowerNorm(0.5, 0, 100))  # mistakes are small shares
    ticks = range(0, len(names), -(-len(names) // 40))
    labels = [short(names[i]) for i in ticks]
    axis.set_xticks(ticks, labels, rotation=90 if max(map(len, labels)) > 3 else 0)
    axis.set_yticks(ticks, labels)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.grid(visible=False)
    return share


def reliability(snapshots: Mapping[str, Snapshot]) -> Figure:
    """Draw for some rounds, by name, how often the classifier is right when it says how sure."""
    figure, (axis,) = new(4.2, 3.4)
    draw_reliability(axis, snapshots)
    return figure


def draw_reliability(axis: Axes, snapshots: Mapping[str, Snapshot]) -> None:
    """Draw reliability diagrams; a dot is the larger, the more images it stands for."""
    axis.plot([0, 100], [0, 100], color=GREY, lw=1, ls=":")
    for number, (name, snapshot) in enumerate(snapshots.items()):
        count, confidence, right = snapshot.reliability[snapshot.reliability[:, 0] > 0].T
        size = 4 + 40 * count / count.sum()
        axis.plot(100 * confidence, 100 * right, lw=1, color=COLOURS[number], label=name)
        axis.scatter(100 * confidence, 100 * right, s=size, color=COLOURS[number])
    axis.set(xlabel="confidence (%)", ylabel="of these right (%)", xlim=(0, 102), ylim=(0, 102))
    axis.legend(frameon=False)


def errors(snapshot: Snapshot, name: str) -> Figure:
    """Draw both, of one round, in a tenth of a second: for every round of a run."""
    figure = Figure(figsize=(9, 4))
    left, right = figure.subplots(1, 2)
    draw_confusion(left, snapshot)
    draw_reliability(right, {name: snapshot})
    return figure


def seconds(rounds: pd.DataFrame) -> Figure:
    """Draw what the time of a round goes to."""
    figure, (axis,) = new()
    draw_seconds(axis, rounds)
    legend_above(figure)
    return figure


def draw_seconds(axis: Axes, rounds: pd.DataFrame) -> None:
    """Draw a bar a round, of one phase above the other."""
    below = np.zeros(len(rounds))
    for number, phase in enumerate(PHASES):
        if f"seconds_{phase}" in rounds:
            height = rounds[f"seconds_{phase}"].fillna(0).to_numpy()
            colour, label = COLOURS[number], phase.replace("_mc", " with draws")
            x, width = rounds["labelled"], width_of(rounds)
            axis.bar(x, height, width=width, bottom=below, color=colour, label=label)
            below += height
    axis.set(xlabel="labels", ylabel="seconds")


def wins(table: pd.DataFrame) -> Figure:
    """Draw in how many of all pairs of runs a method, a row, is above another one, a column."""
    count = len(table)
    figure, (axis,) = new(2.6 + 0.42 * count, 1.6 + 0.36 * count)
    image = axis.imshow(100 * table, cmap="PuOr", vmin=0, vmax=100, aspect="auto")
    for row, column in np.argwhere(table.notna().to_numpy()):
        share = 100 * table.iloc[row, column]
        ink = "#ffffff" if abs(share - 50) > 35 else "#000000"
        axis.text(column, row, f"{share:.0f}", ha="center", va="center", color=ink, size=8)
    methods = [plain(str(method)) for method in table.columns]
    axis.set_xticks(range(count), methods, rotation=40, ha="right")
    axis.set_yticks(range(count), methods)
    axis.grid(visible=False)
    figure.colorbar(image, label="% of pairs won").outline.set_visible(False)
    return figure


def width_of(rounds: pd.DataFrame) -> float:
    """Return the width of a round's bar."""
    steps = rounds["labelled"].diff().dropna()
    return 0.8 * float(steps.median()) if len(steps) and steps.median() > 0 else 0.8


def short(name: str) -> str:
    """Return a name that fits to an axis."""
    return plain(name if len(name) <= 14 else f"{name[:13]}…")


def plain(name: str) -> str:
    """Return a name so that matplotlib takes no part of it for mathematics."""
    return name.replace("$", r"\$")
