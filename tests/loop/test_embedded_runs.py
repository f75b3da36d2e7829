"""Runs on vectors that a frozen network has made, through the command, on real digits."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import QUIET, SMALL, assert_same_run, refusal
from killed import At, finish, forked, ran
from people import SETTINGS, answers_of, write_digits
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

from baldvae_pl import Digits
from baldvae_pl.loop.picturing import nearest
from baldvae_pl.networks import VectorNet
from baldvae_pl.runs.checkpoints import load_checkpoint

FROZEN = """
import torch
from torch import nn

class Frozen(nn.Sequential):
    def __init__(self, width=24):
        torch.manual_seed(5)
        super().__init__(nn.Conv2d(1, width, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten())

def narrow():
    return Frozen(12)
"""

EMBEDDED = [
    "--data.embedding=frozen_net.Frozen",
    "--model.network=baldvae_pl.networks.VectorNet",
    "--vae.likelihood=gaussian",
]
RUN = Path("lightning_logs/digits/version_0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of BALD-VAE on vectors of digits, and its cache."""
    here = tmp_path_factory.mktemp("embedded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(here / "home"))
        (here / "frozen_net.py").write_text(FROZEN)
        done = ran(*SMALL, *EMBEDDED, cwd=here, pictures=True)
        assert done.returncode == 0, done.stderr
    assert "Embedding W" in done.stderr
    return here


@pytest.fixture
def here(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(elsewhere / "home"))
    (elsewhere / "frozen_net.py").write_text(FROZEN)
    return elsewhere


def test_complements_are_vectors_and_pictures_show_what_is_nearest(finished: Path) -> None:
    state = load_checkpoint(finished / RUN / "checkpoints" / "last.ckpt")
    generated = state["PoolDataModule"]["pool"]["generated"]
    assert generated["images"].dtype == torch.float32
    assert generated["images"].shape[1:] == (96,)
    complements = pd.read_csv(finished / RUN / "rounds.csv")["complemented"].sum()
    assert complements == len(generated["images"]) > 0
    events = EventAccumulator(str(finished / RUN)).Reload()
    tags = events.Tags()["images"]
    assert "images/1 the first 24 bought" in tags
    assert "images/3 parents above complements" in tags


def test_the_nearest_is_that_of_all_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    among = torch.rand(66_000, 2, generator=generator)
    vectors = torch.rand(5, 2, generator=generator)
    expected = (vectors[:, None] - among).square().sum(-1).argmin(1)
    assert torch.equal(nearest(vectors, among), expected)
    assert torch.equal(nearest(among[[65_990, 3]], among), torch.tensor([65_990, 3]))
    assert nearest(vectors[:0], among).shape == (0,)


def test_a_killed_run_ends_with_the_same_bits_with_or_without_the_vectors(
    finished: Path, here: Path
) -> None:
    command = [*SMALL, *EMBEDDED]
    assert forked(command, here, At("training", 12)) == -9
    shutil.rmtree(here / "home")
    finish(command, here)
    assert_same_run(finished / RUN, here / RUN)


def test_predictions_are_of_the_vectors_of_the_images(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    images = Digits()(finished).test.images[:20]
    (here / "new").mkdir()
    for number, image in enumerate(images[:, 0].numpy()):
        Image.fromarray(image).save(here / "new" / f"{number:02}.png")
    options = [f"--predictions.folder={here}/new", f"--predictions.file={here}/p.csv"]
    command = ["predict", *SMALL[1:], *EMBEDDED, "--ckpt_path=last", *QUIET]
    done = ran(*command, *options, "--acquisition.posterior=Deterministic", cwd=finished)
    assert done.returncode == 0, done.stderr

    monkeypatch.setattr(sys, "path", [*sys.path, str(here)])
    import frozen_net  # type: ignore[import-not-found]

    state = load_checkpoint(finished / RUN / "checkpoints" / "last.ckpt")["state_dict"]
    network = VectorNet(10, (96,)).eval()
    network.load_state_dict({name.removeprefix("network."): w for name, w in state.items()})
    with torch.no_grad():
        probabilities = network(frozen_net.Frozen()(images / 255)).softmax(1)
    table = pd.read_csv(here / "p.csv", dtype={"class": str})
    assert table["class"].tolist() == [str(i) for i in probabilities.argmax(1).tolist()]
    torch.testing.assert_close(
        torch.tensor(table["probability"].to_numpy()).float(), probabilities.amax(1)
    )

    other = [option.replace("Frozen", "narrow") for option in command]
    said = ran(*other, *options, cwd=finished)
    assert said.returncode == 1
    assert "--data.embedding: the checkpoint was made with another network" in said.stderr


def test_people_label_pictures_while_the_network_learns_from_vectors(here: Path) -> None:
    (here / "p.yaml").write_text(SETTINGS)
    known = write_digits(here / "digits", 120)
    later = write_digits(here / "later", 150)  # the same ones first
    rows = "".join(f"{file},{label}\n" for file, label in later.items())
    (here / "secret.csv").write_text("file,label\n" + rows)
    names = json.dumps([str(i) for i in range(10)])
    command = [
        *("fit", "--config=p.yaml", "--data.steps_per_round=8", "--data.audit=10"),
        *("--data.oracle=SimulatedPerson", "--data.oracle.labels=secret.csv"),
        *(f"--data.source.classes={names}", *EMBEDDED[:2]),
    ]
    assert forked(command, here) == 0, (here / "output.txt").read_text()
    answers = answers_of(here / "digits" / "labels.csv")
    assert len(answers) == 60
    assert all(row.label == known[row.file] for row in answers)
    rounds = pd.read_csv(here / "lightning_logs" / "p" / "version_0" / "rounds.csv")
    assert rounds["labelled"].tolist() == [20, 40, 50]
    assert rounds["test_images"].tolist() == [10, 10, 10]

    write_digits(here / "digits", 150)  # the folder has grown
    assert forked([*command, "--data.budget=80"], here) == 0, (here / "output.txt").read_text()
    assert len(answers_of(here / "digits" / "labels.csv")) == 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vae.likelihood=bernoulli"], "--vae.likelihood: bernoulli is for pixels"),
        (["--data.embedding=Tim"], "'Tim' is not what it takes. Choose one of Timm, Torchvision"),
        (["--data.embedding=Timm", "--data.embedding.size=3"], "Timm has no option 'size'"),
    ],
)
def test_what_cannot_be_embedded_is_refused(options: list[str], message: str, here: Path) -> None:
    assert message in refusal(*SMALL, *EMBEDDED, *options)


def test_the_head_is_the_same_for_vectors_of_any_scale() -> None:
    head = VectorNet(3, (50,)).eval()
    vectors = torch.rand(4, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(1000 * vectors + 7), head(vectors), atol=1e-3, rtol=1e-3)
    expected = (vectors - vectors.mean(1, keepdim=True)) / vectors.std(1, False).add(0)[:, None]
    torch.testing.assert_close(head.trunk(vectors), expected, atol=1e-3, rtol=1e-3)
    hidden = F.linear(head.trunk(vectors), head.head[1].weight, head.head[1].bias).relu()
    torch.testing.assert_close(
        head(vectors), F.linear(hidden, head.head[4].weight, head.head[4].bias)
    )


def test_a_vae_that_is_not_used_need_not_fit_the_vectors(here: Path) -> None:
    unused = ["--vae.network=baldvae_pl.networks.ConvVAE", "--acquisition.complement=NoComplements"]
    done = ran(*SMALL, *EMBEDDED, *unused, "--acquisition.rounds=0", cwd=here)
    assert done.returncode == 0, done.stderr
    used = [*unused[:1], "--acquisition.complement=Uncertain"]
    assert "--vae.network: " in ran(*SMALL, *EMBEDDED, *used, cwd=here).stderr
