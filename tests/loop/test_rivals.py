"""Rivals as one runs them: killed and resumed to the same bits, and in two processes.

The judge of images that few steps make has to be sure of little.
"""

import signal
from pathlib import Path

import pandas as pd
import pytest
from conftest import SMALL, assert_same_run, rounds_of
from killed import At, forked, ran

IN_TWO = [f"--trainer.{name}" for name in ("accelerator=cpu", "devices=2", "strategy=ddp")]

METHODS = [
    "learning_loss",
    "vae_acgan",
    "bayesian_augmentation",
    "vaal",
    "gaal",
    "asal",
]
JUDGED = ["--data.oracle.network=DigitsNet", "--data.oracle.sure=0.15"]
SHORT = ["--acquisition.rounds=2", "--acquisition.query_size=15"]


def command(method: str) -> list[str]:
    fit, config, *rest = SMALL
    of_its_own = ["--acquisition.selection.steps=5"] if method in ("gaal", "asal") else []
    judged = JUDGED if method == "gaal" else []
    return [fit, config, f"--config={method}.yaml", *rest, *SHORT, *of_its_own, *judged]


@pytest.mark.parametrize("method", METHODS)
def test_a_rival_that_is_killed_goes_on_to_the_same_bits(method: str, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    done = ran(*command(method), cwd=whole)
    assert done.returncode == 0, done.stderr
    code = forked(command(method), halves, at=At("training", 5, since=("round", 2)))
    assert code == -signal.SIGKILL, (halves / "output.txt").read_text()
    resumed = ran(*command(method), "--ckpt_path=last", cwd=halves)
    assert resumed.returncode == 0, resumed.stderr
    run = Path(f"lightning_logs/digits+{method}/version_0")
    assert_same_run(whole / run, halves / run)
    rows, bought = rounds_of(whole / run), pd.read_csv(whole / run / "acquisitions.csv")
    kinds = bought["kind"].value_counts().to_dict()
    if method == "gaal":
        unanswered = rows["answers_cannot_tell"].dropna()
        assert kinds["synthesised"] + unanswered.sum() == 30
        assert kinds["synthesised"] > 0
        assert "acquired" not in kinds
    else:
        assert kinds["acquired"] == 30
    # Each new label of VAE-ACGAN has a complement; the others have none.
    assert kinds.get("complement", 0) == (30 if method == "vae_acgan" else 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_rival_runs_in_two_processes(method: str, tmp_path: Path) -> None:
    done = ran(*command(method), *IN_TWO, "--acquisition.rounds=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = rounds_of(tmp_path / f"lightning_logs/digits+{method}/version_0")
    assert rows["labelled"].iloc[0] == 15
    assert len(rows) == 2


def test_made_images_need_somebody_who_looks_at_them(tmp_path: Path) -> None:
    fit, config, *rest = SMALL
    done = ran(fit, config, *rest, "--acquisition.selection=GAAL", cwd=tmp_path)
    assert done.returncode == 1
    assert "--acquisition.selection: GAAL asks about images that are not in the data set" in (
        done.stderr
    )
    assert "Give --data.oracle Judge" in done.stderr


def test_a_dcgan_makes_the_images_in_place_of_the_vae(tmp_path: Path) -> None:
    short = [*command("asal"), "--config=dcgan.yaml", "--vae.epochs=1", "--acquisition.rounds=1"]
    done = ran(*short, "--acquisition.selection.space=features", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "lightning_logs/digits+asal+dcgan/version_0"
    assert (run / "checkpoints" / "vae.ckpt").is_file()
    assert rounds_of(run)["labelled"].tolist() == [15, 30]
    refused = ran(*short, cwd=tmp_path)
    assert refused.returncode == 1
    assert "--vae.network: DCGAN makes images and encodes none, as --acquisition.selection" in (
        refused.stderr
    )
