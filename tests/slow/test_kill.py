"""A run that is killed anywhere, any number of times, ends as if it had not been."""

import random
import signal
from collections import Counter
from pathlib import Path

import pytest
from helpers import RUN, SMALL, assert_same_run
from killed import ASKED, EVENTS, At, finish, forked

RUN_OF_TWO_VAE_EPOCHS = [*SMALL, "--vae.epochs=2"]
FEW_LABELS = [
    *RUN_OF_TWO_VAE_EPOCHS,
    *("--model.objective=FixMatch", "--model.objective.unlabelled_batch_size=40"),
    *("--model.schedule=one_cycle", "--acquisition.warm_start=true"),
    *("--acquisition.function=EPIG", "--acquisition.initial_selection=Unexplored"),
    *("--acquisition.selection=ClusterMargin", "--acquisition.selection.space=features"),
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert forked(RUN_OF_TWO_VAE_EPOCHS, folder) == 0, (folder / "output.txt").read_text()
    return folder


def assert_same(uninterrupted: Path, folder: Path, asked_again: int) -> None:
    assert [run.name for run in (folder / RUN).parent.iterdir()] == ["version_0"]
    assert_same_run(uninterrupted / RUN, folder / RUN)
    assert not [*folder.rglob("*.tmp")]
    expected = Counter((uninterrupted / ASKED).read_text().split())
    asked = Counter((folder / ASKED).read_text().split())
    assert asked.keys() == expected.keys()
    assert (asked - expected).total() <= asked_again


@pytest.mark.parametrize("afterwards", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("event", EVENTS)
def test_killed_at_every_event(
    event: str, afterwards: bool, uninterrupted: Path, tmp_path: Path
) -> None:
    kth = 0
    while True:
        kth += 1
        folder = tmp_path / str(kth)
        folder.mkdir()
        code = forked(RUN_OF_TWO_VAE_EPOCHS, folder, at=At(event, kth, afterwards))
        if code == 0:
            break  # there is no k-th
        assert code == -signal.SIGKILL, (folder / "output.txt").read_text()[-3000:]
        finish(RUN_OF_TWO_VAE_EPOCHS, folder)
        # What the oracle said is lost only if it has not been written down yet.
        unwritten = event == "oracle" or (event == "answers" and not afterwards)
        assert_same(uninterrupted, folder, 25 if unwritten else 0)
    assert kth > 2


@pytest.mark.parametrize("seed", range(20))
def test_killed_at_random_moments(seed: int, uninterrupted: Path, tmp_path: Path) -> None:
    whole, chance = 5.0, random.Random(seed)
    folder = tmp_path
    for _ in range(3):
        begun = any(folder.glob("lightning_logs/*/version_*"))
        resume = ["--ckpt_path=last"] * begun
        forked([*RUN_OF_TWO_VAE_EPOCHS, *resume], folder, after=chance.uniform(0, whole))
    finish(RUN_OF_TWO_VAE_EPOCHS, folder)
    assert_same(uninterrupted, folder, 3 * 25)


@pytest.fixture(scope="module")
def uninterrupted_few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted_few")
    assert forked(FEW_LABELS, folder) == 0, (folder / "output.txt").read_text()
    return folder


@pytest.mark.parametrize("seed", range(6))
def test_semi_supervised_rounds_killed_at_random_moments(
    seed: int, uninterrupted_few: Path, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    for _ in range(3):
        begun = any(tmp_path.glob("lightning_logs/*/version_*"))
        resume = ["--ckpt_path=last"] * begun
        forked([*FEW_LABELS, *resume], tmp_path, after=chance.uniform(0, 8.0))
    finish(FEW_LABELS, tmp_path)
    assert_same(uninterrupted_few, tmp_path, 3 * 25)
