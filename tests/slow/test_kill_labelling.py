"""While somebody labels, the run may be killed at any moment: nothing is lost or asked twice."""

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import assert_same_run
from killed import forked
from people import answers_of, write_digits

KILLED_WITHIN = 1.2
"""Seconds; a start needs about one to get to its question or its training."""

RUN = Path("lightning_logs/kill/version_0")

SETTINGS = """
data:
  source:
    class_path: UnlabelledFolder
    init_args: {image_size: 8, channels: 1}
  root: digits
  oracle: {class_path: People, init_args: {wait: true}}
  budget: 72
  audit: 12
  initial_labels: 20
  batch_size: 16
  steps_per_round: 12
acquisition: {rounds: null, query_size: 20, mc_samples: 4}
vae: {network: {class_path: baldvae_pl.networks.DenseVAE, init_args: {hidden: 32, latent: 4}},
      epochs: 1, batch_size: 32}
trainer: {enable_progress_bar: false, enable_model_summary: false, log_every_n_steps: 4}
"""

PERSON = """
import json, sys, time
from pathlib import Path
from baldvae_pl.data.labels import LabelsFile, Row
from baldvae_pl.data.question_file import question_in

secret = json.loads(Path("secret.json").read_text())
labels = LabelsFile(Path("digits/labels.csv"))
with open("acknowledged.txt", "a") as acknowledged:
    while True:
        question = question_in(Path(sys.argv[1]) / "question.json")
        labels.refresh()
        known = {row.file for row in labels.rows if row.label}
        for asked in question.asked if question else []:
            if asked.file not in known:
                label, number = secret[asked.file], str(question.round)
                row = Row(asked.file, label, "Ann", "1", number, asked.why)
                labels.append([row])
                acknowledged.write(asked.file + "\\n")
                acknowledged.flush()
                time.sleep(0.1)
        time.sleep(0.01)
"""

pytestmark = pytest.mark.slow


def prepare(folder: Path) -> None:

    (folder / "secret.json").write_text(json.dumps(write_digits(folder / "digits", 140)))
    (folder / "kill.yaml").write_text(SETTINGS)


@contextmanager
def person(folder: Path) -> Iterator[None]:
    """Somebody who answers what is asked, in its order, whether or not a process runs."""
    process = subprocess.Popen([sys.executable, "-c", PERSON, str(RUN)], cwd=folder)
    try:
        yield
    finally:
        assert process.poll() is None
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    prepare(folder)
    with person(folder):
        assert forked(["fit", "--config=kill.yaml"], folder) == 0, (
            folder / "output.txt"
        ).read_text()
    assert len(answers_of(folder / "digits" / "labels.csv")) == 72
    return folder


@pytest.mark.parametrize("seed", range(10))
def test_killed_ten_times_at_random_moments(seed: int, uninterrupted: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    chance, command = random.Random(seed), ["fit", "--config=kill.yaml"]
    with person(tmp_path):
        kills = 0
        while forked(command, tmp_path, after=chance.uniform(0, KILLED_WITHIN)) != 0:
            kills += 1
            if kills == 10:
                assert forked(command, tmp_path) == 0, (tmp_path / "output.txt").read_text()[-3000:]
                break
        assert kills == 10
    rows = answers_of(tmp_path / "digits" / "labels.csv")
    acknowledged = (tmp_path / "acknowledged.txt").read_text().split()
    assert [row.file for row in rows] == acknowledged  # each of them is there, once
    assert max(Counter(acknowledged).values()) == 1
    expected = answers_of(uninterrupted / "digits" / "labels.csv")
    assert [row[:6] for row in rows] == [row[:6] for row in expected]
    assert [run.name for run in (tmp_path / RUN).parent.glob("version_*")] == ["version_0"]
    assert_same_run(uninterrupted / RUN, tmp_path / RUN)
    assert not [*tmp_path.rglob("*.tmp")]
