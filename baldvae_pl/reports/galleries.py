"""The parts of a run's page that show pictures: what was bought, complements, doubtful labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from baldvae_pl.reports import figures
from baldvae_pl.reports.page import drawn, part
from baldvae_pl.reports.pictures import class_name, data_uri
from baldvae_pl.runs.snapshots import Gallery, Snapshot

MOST_ROUNDS = 20
"""Rounds that are shown with pictures; of more, so many evenly spread ones."""


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
                    f"Bought, the first choices, {share_wrong(snapshots[number].bought)} predicted "
                    "wrongly",
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


def share_wrong(gallery: Gallery) -> str:
    """Return of how many pictures the classifier predicts another class than theirs."""
    known = gallery.labels >= 0
    return f"{(known & (gallery.labels != gallery.guesses)).sum()} of {known.sum()}"


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
    # A table may be a moment older than the last snapshot.
    counts = made.set_index("round")["complemented"]
    for number in (n for n, s in snapshots.items() if len(s.complements.pictures) and n in counts):
        of = snapshots[number]
        far = [f"distance {x:.3f}" for x in of.distances]
        of_parents, copies = items(of.parents, of.classes), items(of.complements, of.classes, far)
        pairs = [one + other for one, other in zip(of_parents, copies, strict=True)]
        some = f"{len(pairs)} of {counts[number]:,.0f}"
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


def doubtful_part(rounds: pd.DataFrame, snapshots: dict[int, Snapshot]) -> dict[str, Any] | None:
    """Labels that may be wrong."""
    doubted = [n for n, snapshot in snapshots.items() if len(snapshot.doubtful.pictures)]
    if not doubted:
        return None
    last, labels = snapshots[doubted[-1]], rounds.set_index("round")["labelled"][doubted[-1]]
    believed = [f"label {probability:.1%}" for probability in last.beliefs]
    gallery = {
        "title": f"After round {doubted[-1]}, with {labels:,} labels",
        "galleries": [("", items(last.doubtful, last.classes, believed))],
    }
    text = (
        "Of the labelled images that it is most uncertain about, those whose label it finds "
        "least probable (“label”): hard ones, or wrong labels."
    )
    return part("doubtful", "Doubtful labels", text, rounds=[gallery])


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
