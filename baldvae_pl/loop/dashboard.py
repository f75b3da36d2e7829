"""A round in TensorBoard and other loggers, all against the number of labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from baldvae_pl.reports import figures
from baldvae_pl.reports.pictures import sheet
from baldvae_pl.runs.folder import FIRST_ROUND, RunFolder
from baldvae_pl.runs.snapshots import read_snapshot

WITH_PICTURES = (TensorBoardLogger, WandbLogger, MLFlowLogger)
"""Loggers that take images."""

ORDER = ("test", "pool", "bald", "acquired", "complement", "answers", "graph", "seconds")
"""Groups in the order of the story; TensorBoard sorts them by name, so they get a number there."""

DESCRIPTIONS = {
    "test/acc": "Share of the test images that get their class, dropout off.",
    "test/acc_mc": "The same by predictions averaged over the posterior's draws.",
    "test/nll": "Negative log-likelihood of the test images, in nats.",
    "test/nll_mc": "The same by predictions averaged over the posterior's draws.",
    "test/ece": "Expected calibration error on the test images, 15 bins.",
    "test/ece_mc": "The same by predictions averaged over the posterior's draws.",
    "test/acc_low": "Lower end of the accuracy's 95 % interval (Wilson).",
    "test/acc_high": "Upper end of it.",
    "test/images": "Number of test images.",
    "pool/labelled": "Labels that the round trained with.",
    "pool/unlabelled": "Images without a label.",
    "pool/generated": "Complements that the round trained with.",
    "pool/complemented": "Complements that were made at its end.",
    "bald/threshold": "BALD from which on a labelled image gets a complement, in nats: by default "
    "that of the last image bought.",
    "bald/labelled_max": "The highest BALD of a labelled image. Complements are made once it "
    "reaches the threshold.",
    "bald/margin": "Threshold less highest labelled score: at 0 or below, complements are made.",
    "bald/labelled_mean": "Mean BALD of the labelled images, in nats.",
    "bald/unlabelled_max": "The highest BALD of an unlabelled image, in nats.",
    "bald/unlabelled_mean": "Mean BALD of the unlabelled images, in nats.",
    "acquired/redundancy": "How alike the bought images are: mean cosine similarity of features.",
    "complement/distance": "Distance of complements from their parents, eq. 5: root of the mean "
    "squared difference of a pixel.",
    "complement/bald": "Mean BALD of the new complements, eq. 6, in nats.",
    "complement/parent_bald": "Mean BALD of their parents, in nats.",
    "complement/acc": "Share of the new complements that the classifier gives their label.",
    "answers/cannot_tell": "Images that nobody could tell.",
    "answers/agreement": "Share of the new labels that the classifier had guessed. No accuracy.",
    "graph/acc": "Share of U to which the neighbour graph alone gives its class.",
    "seconds/train": "Seconds of training.",
    "seconds/evaluate": "Seconds of testing, dropout off.",
    "seconds/evaluate_mc": "Seconds of testing with the posterior's draws.",
    "seconds/score": "Seconds of scoring all of W.",
    "seconds/select": "Seconds of choosing, and of waiting for answers.",
    "seconds/complement": "Seconds of making complements.",
}

LAYOUT = {
    "Accuracy": ("test/acc", "test/acc_mc"),
    "Whether complements are made: threshold and highest labelled BALD": (
        "bald/threshold",
        "bald/labelled_max",
    ),
    "Mean BALD of unlabelled and labelled": ("bald/unlabelled_mean", "bald/labelled_mean"),
    "Complements and their parents": ("complement/bald", "complement/parent_bald"),
    "Seconds by phase": tuple(tag for tag in DESCRIPTIONS if tag.startswith("seconds/")),
}
"""Charts of TensorBoard's custom scalars: what belongs together."""


def tag_of(tag: str) -> str:
    """Return a tag as TensorBoard gets it."""
    group = tag.split("/")[0]
    return f"{ORDER.index(group) + 1} {tag}" if group in ORDER else tag


def log_round(trainer: Trainer, row: Mapping[str, float]) -> None:
    """Log a round's row; x is the number of labels that the round trained with."""
    scalars = {key: value for key, value in row.items() if "/" in key}
    counts = ("labelled", "unlabelled", "generated", "complemented")
    scalars |= {f"pool/{key}": row[key] for key in counts if key in row}
    labels = int(row["labelled"])
    for logger in trainer.loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_metrics(scalars, step=labels)
        elif trainer.is_global_zero:
            write_scalars(logger.experiment, scalars, labels)


def write_scalars(writer: Any, scalars: Mapping[str, float], labels: int) -> None:
    """Write scalars with their descriptions, which torch's own function leaves out.

    Args:
        writer: A ``SummaryWriter``.
        scalars: By tag.
        labels: x.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    values = []
    for tag, value in scalars.items():
        about = f"{DESCRIPTIONS.get(tag, '')} x: the number of labels.".strip()
        name = tag_of(tag)
        metadata = SummaryMetadata(
            display_name=name,
            summary_description=about,
            plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"),
        )
        values.append(Summary.Value(tag=name, simple_value=float(value), metadata=metadata))
    writer._get_file_writer().add_summary(Summary(value=values), labels)


def log_layout(trainer: Trainer, chosen: Mapping[str, Any]) -> None:
    """Tell TensorBoard which curves belong together, and what tells this run from others.

    Args:
        trainer: Of the run.
        chosen: The settings that are compared between runs.
    """
    from tensorboard.plugins.hparams import summary_v2 as hparams

    charts = {title: ["Multiline", [*map(tag_of, tags)]] for title, tags in LAYOUT.items()}
    metrics = [
        tag_of(tag) for tag in ("test/acc", "test/acc_mc", "pool/labelled", "pool/generated")
    ]
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            logger.experiment.add_custom_scalars({"A run": charts})
            names, tags = map(hparams.HParam, chosen), map(hparams.Metric, metrics)
            writer = logger.experiment._get_file_writer()
            writer.add_summary(hparams.hparams_config_pb(hparams=[*names], metrics=[*tags]))
            place = Path(logger.log_dir).absolute()
            part = ", first round" if place.match(f"{FIRST_ROUND}/*/*/*") else ""
            # Runs of a name are taken for one.
            name = f"{'/'.join(place.parts[-2:])}, seed {chosen['seed']}{part}"
            writer.add_summary(hparams.hparams_pb({**chosen}, trial_id=name))
        elif not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams({**chosen})


def log_pictures(trainer: Trainer, folder: RunFolder, row: Mapping[str, float]) -> None:
    """Log what a round looked like, as reports show it: the first process does, from its records.

    Args:
        trainer: Of the run.
        folder: Of the run; its tables are written already.
        row: The round's.
    """
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WITH_PICTURES)]
    if not loggers or not trainer.is_global_zero:
        return
    snapshot, labels = read_snapshot(folder.snapshot(int(row["round"]))), int(row["labelled"])
    if snapshot is None:
        return
    rounds = pd.read_csv(folder.rounds)
    acquisitions = pd.read_csv(folder.acquisitions, encoding_errors="surrogateescape")
    galleries = {
        "images/1 the first 24 bought": [snapshot.bought],
        "images/2 most uncertain of those not bought": [snapshot.passed],
        "images/3 parents above complements": [snapshot.parents, snapshot.complements],
        "images/4 doubtful labels": [snapshot.doubtful],
    }
    pictures = {
        tag: sheet(of_it, snapshot.classes)
        for tag, of_it in galleries.items()
        if len(of_it[0].pictures)
    }
    drawn = {"images/6 classes and seconds": figures.progress(rounds, acquisitions, snapshot)}
    if snapshot.confusion_C_C.any():
        errors = figures.errors(snapshot, f"{labels} labels")
        drawn["images/5 errors and reliability"] = errors
    pictures |= {tag: pixels(figure) for tag, figure in drawn.items()}
    for logger in loggers:
        for tag, picture in pictures.items():
            log_picture(logger, tag, picture, labels)


def pixels(figure: Figure) -> np.ndarray:
    """Return a figure as 8-bit RGB of shape (height, width, 3)."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    drawn: np.ndarray = np.asarray(canvas.buffer_rgba())[..., :3]
    return drawn


def log_picture(logger: Logger, tag: str, picture: np.ndarray, labels: int) -> None:
    """Log 8-bit RGB of shape (height, width, 3) in the way of a logger."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(tag, picture, labels, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(tag, [picture], step=labels)
    elif isinstance(logger, MLFlowLogger):
        about: Any = {"key": tag, "step": labels, "synchronous": True}
        logger.experiment.log_image(logger.run_id, picture, **about)
