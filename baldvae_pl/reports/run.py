"""A run as one page: what happened, what was bought and why, where the classifier is wrong.

The page is a file of its own: it needs no network, and no program but a browser.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import escape
from matplotlib.figure import Figure

from baldvae_pl.errors import SettingError
from baldvae_pl.reports import figures
from baldvae_pl.reports.pictures import class_name, data_uri
from baldvae_pl.runs.files import replacing
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.snapshots import Gallery, Snapshot, read_snapshot
from baldvae_pl.runs.tables import read_rounds

MOST_ROUNDS = 20
"""Rounds that are shown with pictures; of more, so many evenly spread ones."""


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
        *error_parts(rounds, snapshots),
        time_part(rounds),
        settings_part(run, versions),
    ]
    return filled(title, subtitle, headline(rounds), [part for part in parts if part])


def filled(
    title: str, subtitle: str, numbers: Sequence[tuple[str, str]], parts: Sequence[dict[str, Any]]
) -> str:
    """Return the template with its contents.

    Args:
        title: Of the page.
        subtitle: Below it.
        numbers: Names and values that are shown first.
        parts: As `part` makes them.
    """
    template = resources.files("baldvae_pl.reports") / "page.html"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made = environment.from_string(template.read_text(encoding="utf-8"))
    return made.render(title=title, subtitle=subtitle, numbers=numbers, parts=parts)


def part(id: str, title: str, *texts: str, **contents: Any) -> dict[str, Any]:
    """Return a part of the page.

    Args:
        id: Of its link.
        title: Its heading.
        texts: Sentences.
        contents: ``figures``; ``rounds`` with pictures; ``tables``, as HTML; ``code``, names and
            texts; ``folded``, names and HTML that is shown on demand.
    """
    nothing: dict[str, Any] = {"figures": [], "rounds": [], "tables": [], "code": [], "folded": []}
    return {"id": id, "title": title, "texts": texts} | nothing | contents


def drawn(figure: Figure, alt: str) -> dict[str, str]:
    """Return a figure for a part; who cannot see it is told what it shows."""
    return {"svg": figures.svg(figure), "alt": alt}


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
    """Return by which rule a run has bought."""
    if not run.config.is_file():
        return "The highest of the unlabelled images are bought, or what the run's selection takes."
    settings = yaml.safe_load(run.config.read_text(encoding="utf-8"))["acquisition"]
    function, selection, complement = (
        name_of(settings[part]) for part in ("function", "selection", "complement")
    )
    return (
        f"This run ranks by {function}, of {settings['mc_samples']} draws, and buys "
        f"{settings['query_size']:,} images a round by {selection}; complements are those of "
        f"{complement}."
    )


def name_of(plugin: Any) -> str:
    """Return the name of a plug-in of a configuration."""
    path: str = plugin["class_path"] if isinstance(plugin, dict) else plugin
    return path.rpartition(".")[2]


def decision_part(rounds: pd.DataFrame, bought: str) -> dict[str, Any] | None:
    """Threshold and highest labelled score: why complements were made, or not.

    Args:
        rounds: Of the run.
        bought: By which rule it has bought.
    """
    scored = rounds.dropna(subset=["bald_threshold"])
    if scored.empty:
        return None
    made = scored[scored["complemented"] > 0]
    closest = scored.loc[scored["bald_margin"].idxmin()]
    texts = [
        "BALD is the mutual information between an image's label and the weights: how much its "
        f"label would tell. {bought} The threshold, by default the lowest BALD that was bought, "
        "is what a labelled image has to reach to get a complement."
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


def purchase_part(
    rounds: pd.DataFrame, snapshots: dict[int, Snapshot], acquisitions: pd.DataFrame | None
) -> dict[str, Any] | None:
    """What was bought, class by class and with pictures."""
    if acquisitions is None or acquisitions.empty:
        return None
    classes = classes_of(snapshots, acquisitions)
    counts = acquisitions[acquisitions["kind"] != "complement"]["label"].value_counts()
    most, least = counts.idxmax(), counts.idxmin()
    texts = [
        f"Of {counts.sum():,} labels the most, {counts.max():,}, are of class {classes[most]}, the "
        f"fewest, {counts.min():,}, of {classes[least]}."
    ]
    if len(counts) < len(classes):
        texts.append(f"{len(classes) - len(counts)} classes have none.")
    shown = [number for number, s in snapshots.items() if len(s.bought.pictures)]
    if len(rounds) > MOST_ROUNDS:
        texts.append(f"Pictures are of {len(shown)} of {len(rounds)} rounds.")
    labels = rounds.set_index("round")["labelled"]
    galleries = [
        {
            "title": f"After round {number}, with {labels[number]:,} labels"
            + in_short(acquisitions[acquisitions["round"] == number + 1], classes),
            "galleries": [
                (
                    f"Bought, the first choices, {wrong(snapshots[number].bought)} of "
                    f"{len(snapshots[number].bought.labels)} predicted wrongly",
                    items(snapshots[number].bought, classes),
                ),
                (
                    "Just missed: the most uncertain that were not bought",
                    items(snapshots[number].passed, classes),
                ),
            ],
        }
        for number in shown
    ]
    alt = f"Labels of each class by round. {texts[0]}"
    chart = drawn(figures.purchases(acquisitions, classes), alt)
    return part("bought", "What was bought", *texts, figures=[chart], rounds=galleries)


def in_short(bought: pd.DataFrame, classes: Sequence[str]) -> str:
    """Return in some words what a purchase was."""
    bought = bought[bought["kind"] == "acquired"]
    if bought.empty:
        return ""
    labels, scores = bought["label"].value_counts(), bought["score"]
    return (
        f": {len(bought):,} bought, {labels.max():,} of class {classes[int(labels.idxmax())]}, "
        f"BALD {scores.max():.2f} to {scores.min():.2f}"
    )


def wrong(gallery: Gallery) -> int:
    """Return how many pictures the classifier predicts to be of another class than theirs."""
    return int(((gallery.labels >= 0) & (gallery.labels != gallery.guesses)).sum())


def complement_part(rounds: pd.DataFrame, snapshots: dict[int, Snapshot]) -> dict[str, Any] | None:
    """Complements beside their parents."""
    if not rounds["complemented"].sum() or "complement_bald" not in rounds:
        return None
    made = rounds[rounds["complemented"] > 0]
    weights = made["complemented"]
    kept, apart = (
        float(np.average(made[column], weights=weights))
        for column in ("complement_acc", "complement_distance")
    )
    text = (
        f"{weights.sum():,.0f} complements. It is their parents that reach the threshold. The "
        f"classifier that they were made with gives {kept:.0%} of them the label that they are "
        f"trained with, {1 - kept:.0%} another one. Their mean distance from their parents is "
        f"{apart:.3f}: the root of the mean squared difference of a pixel, of images from 0 to 1."
    )
    labels, galleries = rounds.set_index("round")["labelled"], []
    for number in (n for n, s in snapshots.items() if len(s.complements.pictures)):
        of = snapshots[number]
        far = [f"distance {x:.3f}" for x in of.distances]
        of_parents, copies = items(of.parents, of.classes), items(of.complements, of.classes, far)
        pairs = [one + other for one, other in zip(of_parents, copies, strict=True)]
        some = f"{len(pairs)} of {made.set_index('round')['complemented'][number]:,.0f}"
        galleries.append(
            {
                "title": f"After round {number}, with {labels[number]:,} labels",
                "galleries": [
                    (f"Parents above their complements, the most uncertain {some}", pairs)
                ],
            }
        )
    chart = drawn(figures.complements(rounds), f"Complements by number of labels. {text}")
    return part("complements", "Complements", text, figures=[chart], rounds=galleries)


def error_parts(rounds: pd.DataFrame, snapshots: dict[int, Snapshot]) -> list[dict[str, Any]]:
    """Where the classifier is wrong, how sure it is, and labels that may be wrong."""
    tested = {n: snapshot for n, snapshot in snapshots.items() if snapshot.confusion_C_C.any()}
    labels, found = rounds.set_index("round")["labelled"], []
    if tested:
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
        found.append(part("errors", "Where it is wrong", *texts, figures=charts))
    doubted = [n for n, snapshot in snapshots.items() if len(snapshot.doubtful.pictures)]
    if doubted:
        last, number = snapshots[doubted[-1]], doubted[-1]
        believed = [f"label {probability:.1%}" for probability in last.beliefs]
        gallery = {
            "title": f"After round {number}, with {labels[number]:,} labels",
            "galleries": [("", items(last.doubtful, last.classes, believed))],
        }
        text = (
            "Of the labelled images that it is most uncertain about, those whose label it finds "
            "least probable (“label”): hard ones, or wrong labels."
        )
        found.append(part("doubtful", "Doubtful labels", text, rounds=[gallery]))
    return found


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


def items(
    gallery: Gallery, classes: Sequence[str], more: Sequence[str] | None = None
) -> list[list[dict[str, Any]]]:
    """Return pictures for the template, each in a group of its own."""
    return [
        [
            {
                "source": data_uri(pixels),
                "photo": max(pixels.shape) > 32,
                "label": class_name(label, classes),
                "guess": classes[int(gallery.guesses[i])],
                "agrees": None if label < 0 else label == int(gallery.guesses[i]),
                "confidence": f"{gallery.confidences[i]:.0%}",
                "score": f"{gallery.scores[i]:.3f}",
                "more": more[i] if more else "",
            }
        ]
        for i, (pixels, label) in enumerate(
            zip(gallery.pictures, gallery.labels.astype(int).tolist(), strict=True)
        )
    ]


def classes_of(snapshots: dict[int, Snapshot], acquisitions: pd.DataFrame) -> list[str]:
    """Return the names of the classes; of those that no snapshot knows, their numbers."""
    names = max((snapshot.classes for snapshot in snapshots.values()), key=len, default=[])
    return names + [str(i) for i in range(len(names), int(acquisitions["label"].max()) + 1)]


def evenly(numbers: Sequence[int]) -> list[int]:
    """Return at most `MOST_ROUNDS` of some numbers, the first and the last among them."""
    count = min(MOST_ROUNDS, len(numbers))
    return [numbers[i] for i in np.linspace(0, len(numbers) - 1, count).round().astype(int)]
