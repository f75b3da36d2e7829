"""Rivals as one runs them: killed and resumed to the same bits, and in two processes.

The judge of images that few steps make has to be sure of little.
"""

import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import SMALL, assert_same_run, rounds_of
from killed import At, forked, ran

IN_TWO = [f"--trainer.{name}" for name in ("accelerator=cpu", "devices=2", "strategy=ddp")]

SLOW = ["vae_acgan", "learning_loss", "bayesian_augmentation", "vaal", "asal"]
JUDGED = ["--data.oracle.network=DigitsNet", "--data.oracle.sure=0.15"]
SHORT = ["--acquisition.rounds=2", "--acquisition.query_size=15"]


def command(method: str) -> list[str]:
    fit, config, *rest = SMALL
    of_its_own = ["--acquisition.selection.steps=5"] if method in ("gaal", "asal") else []
    judged = JUDGED if method == "gaal" else []
    return [fit, config, f"--config={method}.yaml", *rest, *SHORT, *of_its_own, *judged]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gaal", *SLOW])
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


@pytest.mark.slow
@pytest.mark.parametrize("method", SLOW)
def test_a_rival_runs_in_two_processes(method: str, tmp_path: Path) -> None:
    of_all = ["--model.objective.generator_learns_from=W"] if method == "vae_acgan" else []
    done = ran(*command(method), *of_all, *IN_TWO, "--acquisition.rounds=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = rounds_of(tmp_path / f"lightning_logs/digits+{method}/version_0")
    assert rows["labelled"].iloc[0] == 15
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("method", "precision"),
    [
        ("asal", "64-true"),
        *(
            pytest.param(method, precision, marks=pytest.mark.slow)
            for method in ("learning_loss", "vae_acgan", "vaal", "asal")
            for precision in ("bf16-true", "bf16-mixed", "64-true")
            if (method, precision) != ("asal", "64-true")
        ),
    ],
)
def test_a_rival_runs_in_other_precisions(method: str, precision: str, tmp_path: Path) -> None:
    how = [f"--trainer.precision={precision}", "--acquisition.rounds=1"]
    of_all = ["--model.objective.generator_learns_from=W"] if method == "vae_acgan" else []
    done = ran(*command(method), *of_all, *how, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = rounds_of(tmp_path / f"lightning_logs/digits+{method}/version_0")
    assert rows["labelled"].tolist() == [15, 30]


REFUSED = [
    (
        ["--acquisition.selection=GAAL"],
        "--acquisition.selection: GAAL asks about images that are not in the data set",
    ),
    (
        ["--acquisition.selection=GAAL", "--data.oracle=SimulatedPerson"],
        "Give --data.oracle Judge, or where people label People",
    ),
    (
        [
            *("--acquisition.selection=GAAL", "--data.oracle=Judge"),
            "--data.oracle.network=baldvae_pl.networks.LeNet",
        ],
        "--data.oracle.network: RuntimeError: ",  # 8 pixels are too few for it
    ),
    (
        ["--acquisition.initial_selection=ASAL"],
        "--acquisition.initial_selection: ASAL needs a trained network",
    ),
    (
        ["--acquisition.complement=Regenerated"],
        "--acquisition.complement: Regenerated asks the encoder and the generator that VAEACGAN",
    ),
    (
        ["--acquisition.function=LeastLabelled"],
        "--acquisition.function: LeastLabelled asks the discriminator that VAAL trains",
    ),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_cannot_work_is_refused_before_anything_is_trained(
    options: list[str], words: str, tmp_path: Path
) -> None:
    fit, config, *rest = SMALL
    done = ran(fit, config, *rest, *options, cwd=tmp_path)
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    assert not [*tmp_path.rglob("vae.ckpt"), *tmp_path.rglob("rounds.csv")]


def test_a_network_with_more_beside_it_is_used_like_any_other(tmp_path: Path) -> None:
    """By a warm start, a selection that looks for its last layer, and the other commands."""
    run = [
        *command("bayesian_augmentation"),
        *("--acquisition.warm_start=true", "--acquisition.selection=BADGE"),
        "--acquisition.rounds=1",
    ]
    done = ran(*run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "lightning_logs/digits+bayesian_augmentation/version_0"
    rows = rounds_of(folder)
    assert rows["labelled"].tolist() == [15, 30]
    options = run[1:]
    tested = ran("test", *options, "--ckpt_path=last", cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr
    weights = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    generators = [name for name in weights if name.startswith("network.beside.generator.")]
    assert generators
    # Batch normalisation of the generator is not that of the images that the classifier sees.
    seen = [weights[name] for name in generators if name.endswith("num_batches_tracked")]
    assert [int(count) for count in seen] == [16, 16, 16]  # 8 steps a round


def test_a_budget_counts_what_nobody_could_tell(tmp_path: Path) -> None:
    never_sure = ["--data.oracle.sure=1.0", "--data.budget=40", "--acquisition.rounds=null"]
    costly = ["--data.cannot_tell_cost=1"]
    done = ran(*command("gaal"), *never_sure, *costly, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = rounds_of(tmp_path / "lightning_logs/digits+gaal/version_0")
    assert rows["labelled"].tolist() == [15, 15, 15]
    assert rows["answers_cannot_tell"].dropna().tolist() == [15, 10]


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
