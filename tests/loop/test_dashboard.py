"""Pictures of a round for each logger that takes some."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import RUN, scalars_of
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, WandbLogger

from baldvae_pl import ActiveLearning, Classifier, NoComplements, PoolDataModule
from baldvae_pl.loop.dashboard import log_pictures
from baldvae_pl.networks import DigitsNet
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.snapshots import read_snapshot, write_snapshot

ROW = {"round": 2.0, "labelled": 65.0}
GALLERIES = [
    "images/1 the first 24 bought",
    "images/2 most uncertain of those not bought",
    "images/3 parents above complements",
    "images/4 doubtful labels",
]
TAGS = {*GALLERIES, "images/5 errors and reliability", "images/6 classes and seconds"}


class Weights(WandbLogger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[int, np.ndarray]] = {}

    def log_image(self, key: str, images: list[Any], step: int | None = None, **_: Any) -> None:
        (image,), step = images, step or 0
        self.given[key] = step, image


class Flow(MLFlowLogger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[int, np.ndarray]] = {}

    @property
    def run_id(self) -> str:
        return "mine"

    @property
    def experiment(self) -> Any:
        return self

    def log_image(self, run: str, image: np.ndarray, key: str, step: int, **_: Any) -> None:
        assert run == "mine"
        self.given[key] = step, image


@pytest.fixture
def folder(finished_run: Path, tmp_path: Path) -> RunFolder:
    """The folder of a run, to be changed."""
    shutil.copytree(finished_run / RUN, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def given(folder: RunFolder, first: bool = True) -> list[dict[str, tuple[int, np.ndarray]]]:
    """What two loggers get, beside one that takes no pictures."""
    loggers = [Weights(), CSVLogger(folder.path), Flow()]
    trainer: Any = SimpleNamespace(loggers=loggers, is_global_zero=first)
    log_pictures(trainer, folder, ROW)
    return [logger.given for logger in loggers if not isinstance(logger, CSVLogger)]


def test_each_logger_gets_the_same_pictures_at_the_number_of_labels(folder: RunFolder) -> None:
    one, other = given(folder)
    assert one.keys() == other.keys() == TAGS
    for tag in TAGS:
        assert one[tag][0] == other[tag][0] == 65
        assert (one[tag][1] == other[tag][1]).all()
        assert one[tag][1].dtype == np.uint8
        assert one[tag][1].shape[2] == 3
    assert given(folder, first=False) == [{}, {}]


def test_without_test_images_there_is_all_but_errors(folder: RunFolder) -> None:
    snapshot = read_snapshot(folder.snapshot(2))
    assert snapshot is not None
    nothing = np.zeros_like(snapshot.confusion_C_C)
    classes = [*snapshot.classes, "made while people labelled"]
    write_snapshot(folder.snapshot(2), snapshot._replace(confusion_C_C=nothing, classes=classes))
    assert given(folder)[0].keys() == TAGS - {"images/5 errors and reliability"}


def test_names_of_files_may_be_no_text(folder: RunFolder) -> None:
    rows = folder.acquisitions.read_bytes().splitlines()
    folder.acquisitions.write_bytes(
        b"\n".join([rows[0], *(row + b"caf\xe9.png" for row in rows[1:])])
    )
    assert given(folder)[0].keys() == TAGS


def test_a_damaged_snapshot_has_no_pictures(folder: RunFolder) -> None:
    folder.snapshot(2).write_bytes(b"half")
    assert given(folder) == [{}, {}]


def test_every_fourth_step_is_logged_and_no_other(finished_run: Path) -> None:
    losses = scalars_of(finished_run / RUN)["train/loss"]
    assert [*losses] == [*range(3, 4 * 8, 4)]  # four rounds of eight steps
    assert len({*losses.values()}) == len(losses)
    assert losses[3] > losses[31] > 0


@pytest.mark.parametrize(("every", "logged"), [(50, []), (5, [4]), (0, [])])
def test_the_last_loss_of_a_round_is_known_whatever_is_logged(
    every: int, logged: list[int], tmp_path: Path
) -> None:
    data = PoolDataModule(initial_labels=20, steps_per_round=7)
    rounds = ActiveLearning(0, 5, complement=NoComplements(), mc_samples=2)
    logger = CSVLogger(tmp_path)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", logger=logger, callbacks=[rounds], log_every_n_steps=every, **quiet
    )
    trainer.fit(Classifier(DigitsNet), datamodule=data)
    assert trainer.callback_metrics["train/loss"] > 0
    rows = pd.read_csv(Path(logger.log_dir, "metrics.csv"))
    of_steps = rows.reindex(columns=["step", "train/loss"]).dropna()
    assert of_steps["step"].tolist() == logged
