"""A power cut: what was not synced is gone, and nothing that was promised is.

A disk is played by what a process syncs. After a cut a file holds what it held when it was synced
last, and nothing if it never was; a folder has the entries that it had when it was synced last.
"""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import RUN, SMALL, assert_same_state, rounds_of
from killed import At, ran
from test_resume import lines_of, one_at_a_time

from baldvae_pl.data.answers import Ledger
from baldvae_pl.runs.checkpoints import load_checkpoint
from baldvae_pl.runs.files import make_folder, replacing

COPIES = "disk"
ENTRIES = "entries.json"


def note_what_is_synced(work: Path, disk: Path) -> Any:
    """Return a fsync that also notes, in another folder, what is on the disk since then."""
    kept: list[int] = []  # open: an inode's number is not used again
    entries: dict[str, dict[str, int]] = {}
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if work != path and work not in path.parents:
            return
        if path.is_dir():
            with os.scandir(path) as listed:
                entries[str(path)] = {entry.name: entry.inode() for entry in listed}
            (disk / ENTRIES).write_text(json.dumps(entries))
        else:
            kept.append(os.dup(descriptor))
            inode = os.fstat(descriptor).st_ino
            shutil.copyfile(path, disk / str(inode))

    return noting


def cut(work: Path, disk: Path) -> None:
    """Leave in a folder what is on the disk."""
    entries = json.loads((disk / ENTRIES).read_text())
    was = work.rename(work.with_name("before the cut"))

    def restore(folder: Path, at: Path) -> None:
        at.mkdir()
        for name, inode in entries.get(str(folder), {}).items():
            copy = disk / str(inode)
            if str(folder / name) in entries or (was / folder.relative_to(work) / name).is_dir():
                restore(folder / name, at / name)
            else:
                (at / name).write_bytes(copy.read_bytes() if copy.exists() else b"")

    restore(work, work)


@pytest.fixture
def powered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """A folder to work in, and one that holds what is on the disk of it."""
    work, disk = tmp_path / "work", tmp_path / COPIES
    work.mkdir()
    disk.mkdir()
    monkeypatch.setattr(os, "fsync", note_what_is_synced(work, disk))
    return work, disk


MOMENTS = {
    "before the first answer": "0 0 die",
    "in the first labels": "0 7 die",
    "at the first purchase": "1 0 die",
    "in a purchase": "2 11 die",
    "at a purchase's last answer": "2 24 die",
}


@pytest.mark.parametrize(
    "moment",
    [
        "in a purchase",
        *(
            pytest.param(moment, marks=pytest.mark.slow)
            for moment in MOMENTS
            if moment != "in a purchase"
        ),
    ],
)
def test_no_answer_is_asked_for_twice_after_a_power_cut(
    moment: str, finished_run: Path, powered: tuple[Path, Path]
) -> None:
    work, disk = powered
    run = [*SMALL, *one_at_a_time(work)]
    (work / "end").write_text(MOMENTS[moment])
    killed = ran(*run, cwd=work)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    cut(work, disk)
    one_at_a_time(work)
    shutil.copy(work.with_name("before the cut") / "asked.jsonl", work)
    done = ran(*run, "--ckpt_path=last", cwd=work)
    assert done.returncode == 0, done.stderr
    assert_same_results(work, finished_run)
    # The killed process noted its question whole; what it was not answered is asked for again.
    round, given, _ = MOMENTS[moment].split()
    *earlier, last = [q for q in lines_of(work / "asked.jsonl") if q[0] <= int(round)]
    asked = [index for question in earlier for index in question[1:]]
    if earlier and earlier[-1][0] == int(round):
        assert last[1:] == earlier[-1][1 + int(given) :]
    labels = [line["image"] for line in lines_of(work / RUN / "answers.jsonl") if "image" in line]
    assert len(labels) == len(set(labels)) == 90
    assert set(asked) <= set(labels)


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(
            At("checkpoint", 2, afterwards=True), id="after a checkpoint", marks=pytest.mark.slow
        ),
        pytest.param(At("rename", 5), id="before a rename", marks=pytest.mark.slow),
        pytest.param(At("csv", 4, afterwards=True), id="after a table", marks=pytest.mark.slow),
        pytest.param(At("training", 20), id="in a training"),
    ],
)
def test_a_run_goes_on_from_what_it_said_was_finished(
    at: At, finished_run: Path, powered: tuple[Path, Path]
) -> None:
    work, disk = powered
    assert ran(*SMALL, cwd=work, at=at).returncode == -signal.SIGKILL
    finished = load_rounds(work)
    cut(work, disk)
    assert load_rounds(work) == finished
    done = ran(*SMALL, "--ckpt_path=last", cwd=work)
    assert done.returncode == 0, done.stderr
    assert_same_results(work, finished_run)


def load_rounds(work: Path) -> list[dict[str, float]]:
    """What the last checkpoint says of the rounds that are finished."""
    last = work / RUN / "checkpoints" / "last.ckpt"
    if not last.exists():
        return []
    history: list[dict[str, float]] = load_checkpoint(last)["callbacks"]["ActiveLearning"][
        "history"
    ]
    return history


def assert_same_results(work: Path, finished_run: Path) -> None:
    """But for TensorBoard's files, which nobody syncs."""
    runs = [folder / RUN for folder in (work, finished_run)]
    assert rounds_of(runs[0]).equals(rounds_of(runs[1]))
    tables = [(run / "acquisitions.csv").read_bytes() for run in runs]
    assert tables[0] == tables[1]
    states = [load_checkpoint(run / "checkpoints" / "last.ckpt") for run in runs]
    for key in ("state_dict", "PoolDataModule"):
        assert_same_state(states[0][key], states[1][key])


def test_a_file_in_a_new_folder_is_on_the_disk(powered: tuple[Path, Path]) -> None:
    work, disk = powered
    with replacing(work / "a" / "b" / "one.txt", "w") as file:
        file.write("1")
    ledger = Ledger(work / "c" / "d" / "answers.jsonl", "these")
    make_folder(work / "e" / "f")
    (work / "g").write_text("not synced")
    cut(work, disk)
    assert (work / "a" / "b" / "one.txt").read_text() == "1"
    assert lines_of(work / "c" / "d" / "answers.jsonl")[0]["data"] == "these"
    assert ledger.path is not None
    assert (work / "e" / "f").is_dir()
    assert sorted(path.name for path in work.iterdir()) == ["a", "c", "e"]
