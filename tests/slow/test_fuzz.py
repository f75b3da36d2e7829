"""Files that a run reads, changed at random: a sentence or the same results, nothing else."""

import contextlib
import io
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pandas as pd
import pytest
from helpers import QUIET, write_tree

from baldvae_pl.main import main

RUN = Path("lightning_logs/mine/version_0")
MINE = """
data:
  source: {class_path: ImageFolder, init_args: {image_size: 8, cache_folder: cache}}
  root: pics
  initial_labels: 6
  batch_size: 4
  steps_per_round: 3
acquisition: {rounds: 2, query_size: 4, mc_samples: 4}
vae: {epochs: 1}
"""
GO_ON = ["fit", "--config=mine.yaml", "--acquisition.rounds=3", "--ckpt_path=last", *QUIET]

FILES = {
    "answers": str(RUN / "answers.jsonl"),
    "settings of the run": str(RUN / "config.yaml"),
    "identity": str(RUN / "run.json"),
    "rounds": str(RUN / "rounds.csv"),
    "purchases": str(RUN / "acquisitions.csv"),
    "checkpoint": str(RUN / "checkpoints/last.ckpt"),
    "vae": str(RUN / "checkpoints/vae.ckpt"),
    "index of the cache": "cache/train-*/index.json",
    "pixels of the cache": "cache/train-*/images",
    "an image": "pics/train/b/0003.jpg",
    "settings of the user": "mine.yaml",
}
MAY_DIFFER = {
    "settings of the user": "a changed number is another setting, and some may change on resume",
}
"""Kinds whose change may lead to other results without a word, and why."""

CHANGES: list[Callable[[bytes, random.Random], bytes]] = [
    lambda _, chance: chance.randbytes(0),
    lambda content, chance: content[: chance.randrange(len(content))],
    lambda content, chance: flipped(content, chance.randrange(len(content)), chance),
    lambda content, chance: flipped(content, chance.randrange(len(content)), chance),
    lambda content, chance: cut(content, chance, twice=False),
    lambda content, chance: cut(content, chance, twice=True),
    lambda content, chance: chance.randbytes(chance.randrange(1, 99)) + content,
    lambda content, chance: bytes(len(content)),
]


def flipped(content: bytes, place: int, chance: random.Random) -> bytes:
    return (
        content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
    )


def cut(content: bytes, chance: random.Random, twice: bool) -> bytes:
    """Take a part out, or repeat it."""
    first, last = sorted(chance.randrange(len(content)) for _ in range(2))
    return content[:last] + content[first:] if twice else content[:first] + content[last:]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two purchases, and in `whole` the same with three."""
    place = tmp_path_factory.mktemp("fuzz")
    for name, rounds in (("begun", 2), ("whole", 3)):
        folder = place / name
        write_tree(folder / "pics", 24, 8, "ab")
        (folder / "mine.yaml").write_text(MINE)
        with contextlib.chdir(folder):
            assert outcome(["fit", "--config=mine.yaml", f"--acquisition.rounds={rounds}", *QUIET])
    return place


def outcome(arguments: list[str]) -> str:
    """Return what the command ends with: one sentence, or "done".

    Raises:
        Exception: That would be a traceback.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["baldvae"])
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "stderr", said := io.StringIO())
        signal.signal(signal.SIGALRM, hangs)
        signal.alarm(60)
        try:
            main(arguments)
        except SystemExit as end:
            sentence = end.code if isinstance(end.code, str) else said.getvalue()
            return sentence.split("baldvae: error: ")[-1].strip()
        finally:
            signal.alarm(0)
    return "done"


def hangs(_: int, frame: FrameType | None) -> None:
    raise TimeoutError("the command hangs")


def results(folder: Path) -> tuple[str, str]:
    rounds = pd.read_csv(folder / RUN / "rounds.csv").drop(columns="checksum")
    same = rounds.drop(columns=[column for column in rounds if column.startswith("seconds")])
    return same.to_csv(), (folder / RUN / "acquisitions.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_a_changed_file_ends_in_a_sentence_or_in_the_same_results(
    finished: Path, tmp_path: Path, kind: str
) -> None:
    expected = results(finished / "whole")
    sentences, same = 0, 0
    for number in range(28):
        chance = random.Random(f"{kind} {number}")
        folder = tmp_path / str(number)
        shutil.copytree(finished / "begun", folder)
        (path,) = folder.glob(FILES[kind])
        path.write_bytes(CHANGES[number % len(CHANGES)](path.read_bytes(), chance))
        with contextlib.chdir(folder):
            said = outcome(GO_ON)
        if said == "done":
            assert kind in MAY_DIFFER or results(folder) == expected, (kind, number)
            same += 1
        else:
            assert len(said.splitlines()) == 1, said
            assert len(said) < 1000, said
            sentences += 1
        shutil.rmtree(folder)
    print(f"{kind}: {sentences} sentences, {same} with the same results")
