"""A run as one page: what happened, what was bought and why, where the classifier is wrong."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import escape

from baldvae_pl.errors import SettingError
from baldvae_pl.reports import figures
from baldvae_pl.reports.galleries import complement_part, doubtful_part, evenly, purchase_part
from baldvae_pl.reports.page import drawn, filled, part
from baldvae_pl.runs.files import replacing
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.settings import load_settings, value_at
from baldvae_pl.runs.snapshots import Snapshot, read_snapshot
from baldvae_pl.runs.tables import read_rounds


def write_page(run: RunFolder, folder: Path) -> Path:
    """Write ``report.html`` of a run into a folder, and return the file.

    Raises:
        SettingError: If there is no round yet, or it cannot be written.
    """
    text, path = page(run), folder / run.report.name
    with replacing(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def page(run: RunFolder) -> str:
    """Return the page of a run as it is now.

    Raises:
        SettingError: If there is no round yet.
    """
    read_rounds(run.rounds)  # is it sound?
    rounds = pd.read_csv(run.rounds).drop(columns="checksum", errors="ignore")
    if rounds.empty:
        raise SettingError(f"{run.rounds} has no round yet. Wait for the first one.")
    numbers = evenly([number for number in rounds["round"] if run.snapshot(number).is_file()])
    found = {number: read_snapshot(run.snapshot(number)) for number in numbers}
    snapshots = {number: snapshot for number, snapshot in found.items() if snapshot is not None}
    acquisitions = None
    if run.acquisitions.is_file():
        acquisitions = pd.read_csv(run.acquisitions, encoding_errors="surrogateescape")
    identity = run.read_identity()
    title, subtitle = run.path.name, f"{run.experiment}/{run.path.name}"
    if identity is not None:
        title = f"{' + '.join(identity.configs)}: {identity.method}, seed {identity.seed}"
    versions = [*dict.fromkeys(snapshot.versions for snapshot in snapshots.values())]
    parts = [
        curve_part(rounds),
        decision_part(rounds, rule(run)),
        purchase_part(rounds, snapshots, acquisitions),
        complement_part(rounds, snapshots),
        error_part(rounds, snapshots),
        doubtful_part(rounds, snapshots),
        time_part(rounds),
        settings_part(run, versions),
    ]
    return filled(title, subtitle, headline(rounds), [part for part in parts if part])


def headline(rounds: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what a run amounts to."""
    last, accuracy = rounds.iloc[-1], rounds["test_acc"].dropna()
    seconds = rounds.filter(like="seconds_").sum().sum()
    numbers = [("labels", f"{last['labelled']:,.0f}"), ("rounds", f"{len(rounds):,}")]
    if len(accuracy):
        numbers.append(("test accuracy at the end", f"{accuracy.iloc[-1]:.2%}"))
        numbers.append(("highest test accuracy", f"{accuracy.max():.2%}"))
    made = rounds["complemented"].sum()
    numbers.append(("complements made", f"{made:,.0f}"))
    took = f"{seconds / 60:,.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
    numbers.append(("in rounds", took))
    return numbers


def curve_part(rounds: pd.DataFrame) -> dict[str, Any] | None:
    """Accuracy against labels."""
    if rounds["test_acc"].isna().all():
        return None
    accuracy = rounds["test_acc"].dropna()
    drop = max(0.0, float(-accuracy.diff().min())) if len(accuracy) > 1 else 0.0
    first, last = rounds.loc[accuracy.index[0]], rounds.loc[accuracy.index[-1]]
    text = (
        f"From {first['test_acc']:.2%} with {first['labelled']:,.0f} labels to "
        f"{last['test_acc']:.2%} with {last['labelled']:,.0f}, dropout off. The largest drop from "
        f"one round to the next is {100 * drop:.2f} points."
    )
    alt = f"Test accuracy against labels. {text}"
    return part("accuracy", "Accuracy", text, figures=[drawn(figures.curve(rounds), alt)])


def rule(run: RunFolder) -> str:
    """Return the settings by which a run buys, as far as they are known."""
    try:
        settings = load_settings(run.config)
    except SettingError:  # also where there is none
        return ""
    named = [
        f"{part} {name}"
        for part in ("function", "selection", "complement", "posterior")
        if (name := name_of(value_at(settings, f"acquisition.{part}")))
    ]
    draws, images = (value_at(settings, f"acquisition.{x}") for x in ("mc_samples", "query_size"))
    return f"This run: {', '.join(named)}, T = {draws}; {images} images a round. "


def name_of(plugin: Any) -> str:
    """Return the name of a plug-in in a configuration; of something else that it is nothing."""
    path = value_at(plugin, "class_path") if isinstance(plugin, dict) else plugin
    return path.rpartition(".")[2] if isinstance(path, str) else ""


def decision_part(rounds: pd.DataFrame, bought: str) -> dict[str, Any] | None:
    """Threshold and highest labelled score: why complements were made, or not.

    Args:
        rounds: Of the run.
        bought: By which settings it has bought, or nothing.
    """
    scored = rounds.dropna(subset=["bald_threshold"])
    if scored.empty:
        return None
    made = scored[scored["complemented"] > 0]
    closest = scored.loc[scored["bald_margin"].idxmin()]
    texts = [
        "BALD is the mutual information between an image's label and the weights: how much its "
        f"label would tell. {bought}The threshold, by default the lowest BALD that was bought, is "
        "what a labelled image has to reach to get a complement."
    ]
    if len(made):
        first = made.iloc[0]
        texts.append(
            f"First complements at {first['labelled']:,.0f} labels; {len(made)} of {len(scored)} "
            "rounds made some."
        )
    elif closest["bald_margin"] > 0:
        texts.append(
            "No labelled image was as uncertain as the threshold asks: the closest was "
            f"{closest['bald_labelled_max']:.3f} where {closest['bald_threshold']:.3f} was needed, "
            f"at {closest['labelled']:,.0f} labels. So no complement was made."
        )
    else:
        texts.append(
            "Labelled images reached the threshold, and the run's policy made no complements of "
            "them."
        )
    alt = "BALD against labels: threshold, highest labelled score, means. " + texts[-1]
    chart = drawn(figures.uncertainty(rounds), alt)
    return part("decision", "What decides", *texts, figures=[chart])


def error_part(rounds: pd.DataFrame, snapshots: dict[int, Snapshot]) -> dict[str, Any] | None:
    """Where the classifier is wrong, and how sure it is."""
    tested = {n: snapshot for n, snapshot in snapshots.items() if snapshot.confusion_C_C.any()}
    if not tested:
        return None
    labels = rounds.set_index("round")["labelled"]
    numbers = [*dict.fromkeys((min(tested), max(tested)))]
    last = tested[numbers[-1]]
    right = last.confusion_C_C.diagonal() / last.confusion_C_C.sum(1).clip(min=1)
    there = last.confusion_C_C.sum(1) > 0
    order = [i for i in right.argsort(kind="stable") if there[i]][:3]
    hardest = ", ".join(f"{last.classes[i]} ({right[i]:.1%} right)" for i in order)
    wrong = last.confusion_C_C.copy()
    np.fill_diagonal(wrong, 0)
    one, other = np.unravel_index(wrong.argmax(), wrong.shape)
    texts = [f"Hardest with {labels[numbers[-1]]:,} labels: {hardest}."]
    if wrong.any():
        texts.append(
            f"The most frequent mistake: {last.classes[int(one)]} taken for "
            f"{last.classes[int(other)]}, {wrong.max():,} times."
        )
    named = {f"{labels[n]:,} labels": tested[n] for n in numbers}
    charts = [
        drawn(figures.confusion(last), f"Confusion matrix. {' '.join(texts)}"),
        drawn(figures.reliability(named), "How often it is right, by how sure it is."),
    ]
    texts.append(
        "On test images, by predictions averaged over the posterior's draws. Above the dotted "
        "line it is more often right than it says; a larger dot stands for more images."
    )
    return part("errors", "Where it is wrong", *texts, figures=charts)


def time_part(rounds: pd.DataFrame) -> dict[str, Any]:
    """What the time went to, and all numbers."""
    seconds = rounds.filter(like="seconds_").fillna(0).mean()
    longest = seconds.idxmax().removeprefix("seconds_").replace("_mc", " with draws")
    text = (
        f"A round takes {seconds.sum():.1f} s in the mean, most of it, {seconds.max():.1f} s, to "
        f"{longest}."
    )
    chart = drawn(figures.seconds(rounds), f"Seconds of each round by phase. {text}")
    table = rounds.to_html(index=False, border=0, na_rep="", float_format="%.4g")
    folded = [("All numbers of all rounds", table)]
    return part("time", "Time", text, figures=[chart], folded=folded)


def settings_part(run: RunFolder, versions: Sequence[str]) -> dict[str, Any]:
    """How to make the run again."""
    code, folded, identity = [], [], run.read_identity()
    texts = [f"Made with {text}." for text in versions]
    if identity is not None:
        names = " + ".join((*identity.configs, identity.method))
        texts.append(f"Begun from {names}, with seed {identity.seed}.")
    if run.config.is_file():
        same = f"baldvae fit --config {quote(str(run.config))}"
        code.append(("The same run again:", same))
        code.append(("Going on with it:", f"{same} --ckpt_path {quote(str(run.last))}"))
        settings = escape(run.config.read_text(encoding="utf-8"))
        folded.append(("All settings", f"<pre>{settings}</pre>"))
    return part("settings", "Settings", *texts, code=code, folded=folded)
