"""Every run has a folder of its own, whatever its logger; what others made is left alone."""

from pathlib import Path

import numpy as np
import pytest
from helpers import QUIET, RUN, SMALL, assert_same_run, rounds_of
from killed import ran
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from PIL import Image

from baldvae_pl.loop.dashboard import log_picture
from baldvae_pl.runs.checkpoints import RunCheckpoint, load_checkpoint

PICTURE = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)

LOGGERS = {
    "none": ["--trainer.logger=false"],
    "csv here": ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=."],
    "tensorboard elsewhere": [
        *("--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=tb"),
        "--trainer.logger.name=mine",
    ],
}


@pytest.mark.parametrize(
    "logger",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "csv here" else name
        for name in LOGGERS
    ],
)
def test_a_run_of_any_logger_goes_on_in_its_folder(
    logger: str, finished_run: Path, tmp_path: Path
) -> None:
    mine = {"config.yaml": "# my notes\n", "rounds.csv": "mine", "checkpoints/last.ckpt": "mine"}
    for name, text in mine.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    begun = ran(*SMALL, *LOGGERS[logger], "--acquisition.rounds=1", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    done = ran(*SMALL, *LOGGERS[logger], "--ckpt_path=last", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / RUN).parent.iterdir()] == ["version_0"]
    assert rounds_of(tmp_path / RUN).equals(rounds_of(finished_run / RUN))
    one, other = (folder / RUN / "acquisitions.csv" for folder in (tmp_path, finished_run))
    assert one.read_bytes() == other.read_bytes()
    assert {name: (tmp_path / name).read_text() for name in mine} == mine
    with_events = {path.parent for path in tmp_path.rglob("events*")}
    assert with_events <= {tmp_path / "tb" / "mine" / f"version_{k}" for k in (0, 1)}
    if logger == "csv here":
        assert (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").is_file()


def test_mlflow_gets_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path / 'runs'}")
    log_picture(logger, "images/1 bought", PICTURE, 20)
    (file,) = (tmp_path / "runs").rglob("images~1 bought+step+20+*.png")
    with Image.open(file) as image:
        assert (np.asarray(image) == PICTURE).all()


def test_weights_and_biases_gets_pictures(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    logger = WandbLogger(offline=True, save_dir=tmp_path)
    log_picture(logger, "images/1 bought", PICTURE, 20)
    logger.experiment.finish()
    (file,) = tmp_path.rglob("media/images/images/1 bought_*.png")
    with Image.open(file) as image:
        assert (np.asarray(image) == PICTURE).all()


def test_a_run_without_a_logger_is_tested_and_a_second_one_has_a_folder_of_its_own(
    tmp_path: Path,
) -> None:
    short = [*SMALL, "--trainer.logger=false", "--acquisition.rounds=0"]
    for _ in range(2):
        assert ran(*short, cwd=tmp_path).returncode == 0
    runs = [tmp_path / RUN, tmp_path / RUN.with_name("version_1")]
    assert_same_tables(*runs)
    tested = ran("test", *SMALL[1:2], "--ckpt_path=last", *QUIET, cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr


def assert_same_tables(one: Path, other: Path) -> None:
    assert rounds_of(one).equals(rounds_of(other))
    weights = [
        RunCheckpoint(r, load_checkpoint(r / "checkpoints" / "last.ckpt")) for r in (one, other)
    ]
    assert weights[0].pools["fingerprint"] == weights[1].pools["fingerprint"]


def test_home_is_meant_by_a_tilde(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work" / "mine.yaml").write_text(
        "trainer: {default_root_dir: ~/runs}\nvae: {shared_path: ~/vaes/one.ckpt}\n"
    )
    done = ran(*SMALL, "--config=mine.yaml", cwd=tmp_path / "work")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "home" / "runs" / "lightning_logs" / "digits+mine" / "version_0"
    assert_same_run(run, finished_run / RUN)
    assert (tmp_path / "home" / "vaes" / "one.ckpt").is_file()
    assert not (tmp_path / "work" / "~").exists()
