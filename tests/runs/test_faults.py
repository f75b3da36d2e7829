"""Disks, folders, signals and damaged files: nothing is lost, and one sentence says what to do."""

import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import RUN, SMALL, assert_same_run, rounds_of
from killed import forked, ran, wait_for

from baldvae_pl.errors import SettingError
from baldvae_pl.runs.checkpoints import newest_checkpoint
from baldvae_pl.runs.files import replacing
from baldvae_pl.runs.folder import RunFolder

LAST = RUN / "checkpoints" / "last.ckpt"


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copied"
    shutil.copytree(finished_run, folder)
    return folder


def waiting_oracle(folder: Path) -> list[str]:
    """An oracle that writes down what it was asked.

    While there is a file ``wait``, it does not answer once it was asked about so many images as
    that says.
    """
    (folder / "waiting.py").write_text(
        "import time, pathlib\n"
        "from baldvae_pl.data.sources import Digits\n"
        "labels = Digits()(None).train.labels\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "asked, wait = folder / 'asked.txt', folder / 'wait'\n"
        "def waits():\n"
        "    try:\n"
        "        return len(asked.read_text().split()) >= int(wait.read_text())\n"
        "    except FileNotFoundError:\n"
        "        return False\n"
        "def ask(indices):\n"
        "    with asked.open('a') as file:\n"
        "        file.write(''.join(f'{i}\\n' for i in indices.tolist()))\n"
        "    while waits():\n"
        "        time.sleep(0.02)\n"
        "    return labels[indices]\n"
    )
    return ["--data.oracle=waiting.ask"]


def asked_of(folder: Path) -> list[str]:
    """The indices that the oracle was asked about."""
    asked = folder / "asked.txt"
    return asked.read_text().split() if asked.exists() else []


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        "changed",
        pytest.param("emptied", marks=pytest.mark.slow),
        pytest.param("missing", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    damage: str, finished_run: Path, copied: Path
) -> None:
    last = copied / LAST
    content = bytearray(last.read_bytes())
    if damage == "truncated":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "changed":  # one bit of a weight
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    elif damage == "emptied":
        last.write_bytes(b"")
    else:
        last.unlink()
    done = ran(*SMALL, "--ckpt_path=last", cwd=copied)
    assert done.returncode == 0, done.stderr
    if damage != "missing":
        assert "damaged or something else" in done.stderr
    assert "previous.ckpt" in done.stderr
    assert_same_run(finished_run / RUN, copied / RUN)


def test_no_sound_checkpoint_is_said_and_nothing_is_touched(copied: Path) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        (copied / RUN / "checkpoints" / name).write_bytes(b"PK")
    before = {path: path.read_bytes() for path in copied.rglob("*.csv")}
    done = ran(*SMALL, "--ckpt_path=last", cwd=copied)
    assert done.returncode == 1
    assert "no checkpoint in" in done.stderr.splitlines()[-1]
    assert before == {path: path.read_bytes() for path in copied.rglob("*.csv")}


def test_a_run_without_a_checkpoint_begins_again_with_its_vae(
    finished_run: Path, copied: Path
) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        (copied / RUN / "checkpoints" / name).unlink()
    weights = copied / RUN / "checkpoints" / "vae.ckpt"
    trained = weights.stat().st_mtime_ns
    refused = ran(*SMALL, "--ckpt_path=last", "--acquisition.query_size=9", cwd=copied)
    assert "--acquisition.query_size: 9 is not what" in refused.stderr
    done = ran(*SMALL, "--ckpt_path=last", cwd=copied)
    assert done.returncode == 0, done.stderr
    assert "has no checkpoint yet: it begins again" in done.stderr
    assert weights.stat().st_mtime_ns == trained
    assert_same_run(finished_run / RUN, copied / RUN)


@pytest.mark.parametrize(
    ("moment", "signum", "code"),
    [
        ("scoring", signal.SIGTERM, 143),
        ("training", signal.SIGINT, 130),
        ("vae", signal.SIGTERM, 143),
        *(
            pytest.param(*which, marks=pytest.mark.slow)
            for which in (
                ("scoring", signal.SIGINT, 130),
                ("training", signal.SIGTERM, 143),
                ("vae", signal.SIGINT, 130),
            )
        ),
    ],
)
def test_signals_end_within_seconds_and_say_how_to_go_on(
    signum: int, code: int, moment: str, tmp_path: Path
) -> None:
    # Where it is, it says itself; what it does there takes longer than anyone waits.
    (tmp_path / "long.py").write_text(
        "import pathlib, time\n"
        "import torch\n"
        "from baldvae_pl.acquisition import bald\n"
        "def score(log_probs_N_T_C):\n"
        "    if len(log_probs_N_T_C) > 8:\n"  # no trial
        "        pathlib.Path('scoring').touch()\n"
        "        for _ in range(6000):\n"
        "            time.sleep(0.01)\n"
        "            bald(log_probs_N_T_C)\n"
        "    return bald(log_probs_N_T_C)\n"
        "class Noting(torch.optim.Adam):\n"
        "    part = 'training'\n"
        "    def step(self, *args, **kwargs):\n"
        "        pathlib.Path(self.part).touch()\n"
        "        return super().step(*args, **kwargs)\n"
        "class NotingVAE(Noting):\n"
        "    part = 'vae'\n"
    )
    long = {
        "scoring": ["--acquisition.function=long.score"],
        "training": ["--model.optimizer=long.Noting", "--data.steps_per_round=1000000"],
        "vae": ["--vae.optimizer=long.NotingVAE", "--vae.epochs=1000000"],
    }[moment]
    there, killed_at = tmp_path / moment, 0.0

    def is_there() -> bool:
        nonlocal killed_at
        killed_at = time.perf_counter()
        return there.exists()

    done = ran(*SMALL, *long, cwd=tmp_path, when=is_there, signum=signum)
    assert time.perf_counter() - killed_at < 10
    assert done.returncode == code, done.stderr
    assert "--ckpt_path last" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    bought = (tmp_path / RUN / "answers.jsonl").exists()
    assert bought == (moment != "vae")  # it was where it should be


def test_no_label_is_asked_for_twice(tmp_path: Path) -> None:
    oracle = waiting_oracle(tmp_path)
    assert ran(*SMALL, *oracle, "--acquisition.rounds=1", cwd=tmp_path).returncode == 0
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / RUN / "checkpoints" / name).unlink()
    again = ran(*SMALL, *oracle, "--ckpt_path=last", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(asked_of(tmp_path)) == len(set(asked_of(tmp_path))) == 90


def test_second_start_on_one_run_folder_is_refused(tmp_path: Path) -> None:
    oracle = waiting_oracle(tmp_path)
    (tmp_path / "wait").write_text("1")
    with ThreadPoolExecutor() as pool:
        refused = threading.Event()
        first = pool.submit(forked, [*SMALL, *oracle], tmp_path, when=refused.is_set)
        try:
            wait_for(lambda: len(asked_of(tmp_path)) > 0)
            done = ran(*SMALL, *oracle, "--ckpt_path=last", cwd=tmp_path)
        finally:
            refused.set()
        assert first.result() == -signal.SIGKILL
    assert done.returncode == 1
    assert "another process works in the run folder" in done.stderr.splitlines()[-1]


def test_run_folder_that_is_removed_comes_back(tmp_path: Path) -> None:
    oracle = waiting_oracle(tmp_path)
    with ThreadPoolExecutor() as pool:
        (tmp_path / "wait").write_text("40")
        run = pool.submit(ran, *SMALL, *oracle, cwd=tmp_path)
        wait_for(lambda: len(asked_of(tmp_path)) == 40)
        shutil.rmtree(tmp_path / "lightning_logs")
        (tmp_path / "wait").unlink()
        assert run.result().returncode == 0, run.result().stderr
    assert rounds_of(tmp_path / RUN)["labelled"].tolist() == [15, 40, 65, 90]
    assert len(pd.read_csv(tmp_path / RUN / "acquisitions.csv").query("kind != 'complement'")) == 90
    assert newest_checkpoint(RunFolder(tmp_path / RUN)) is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while file.write(bytes(10_000)):
            pass


def test_full_disk_loses_nothing(finished_run: Path, small_disk: Path, tmp_path: Path) -> None:
    oracle, root = waiting_oracle(tmp_path), f"--trainer.default_root_dir={small_disk}"
    (tmp_path / "wait").write_text("40")
    with ThreadPoolExecutor() as pool:
        run = pool.submit(ran, *SMALL, root, *oracle, cwd=tmp_path)
        wait_for(lambda: len(asked_of(tmp_path)) == 40)
        assert (small_disk / LAST).exists()
        with pytest.raises(OSError, match="space"):
            fill(small_disk / "filler")
        (tmp_path / "wait").unlink()
        said = run.result().stderr
    assert run.result().returncode == 1, said
    assert "No space left on device" in said.splitlines()[-1]
    assert "Traceback" not in said
    (small_disk / "filler").unlink()
    done = ran(*SMALL, root, *oracle, "--ckpt_path=last", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    bought = [f / RUN / "acquisitions.csv" for f in (finished_run, small_disk)]
    assert bought[0].read_bytes() == bought[1].read_bytes()


def test_read_only_run_folder_is_refused_before_anything(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    root = f"--trainer.default_root_dir={small_disk}"
    done = ran(*SMALL, root, cwd=small_disk.parent)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert "VAE" not in done.stderr


def test_a_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as file:
            file.write(b"new")
            raise OSError("disk full")

    with pytest.raises(SettingError, match="target cannot be written"):
        fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    with replacing(tmp_path / "folder" / "target") as file:
        file.write(b"new")
    assert (tmp_path / "folder" / "target").read_bytes() == b"new"


def test_a_checkpoint_with_code_in_it_is_not_run(copied: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {copied}/harmed",)

    torch.save({"state_dict": Harmful(), "callbacks": {}, "PoolDataModule": {}}, copied / "x.ckpt")
    done = ran(*SMALL, f"--ckpt_path={copied}/x.ckpt", cwd=copied)
    assert done.returncode == 1
    assert "damaged or something else" in done.stderr.splitlines()[-1]
    assert not (copied / "harmed").exists()


def test_another_version_is_refused(copied: Path) -> None:
    last = copied / LAST
    checkpoint = torch.load(last, weights_only=True)
    for made_with in ("0.0.9", None):
        if made_with is None:
            del checkpoint["callbacks"]["RunSettings"]
        else:
            checkpoint["callbacks"]["RunSettings"]["version"] = made_with
        torch.save(checkpoint, last)
        done = ran(*SMALL, "--ckpt_path=last", "--acquisition.rounds=4", cwd=copied)
        assert done.returncode == 1
        assert "was made with baldvae 0." in done.stderr.splitlines()[-1]
    mixed = ran(*SMALL, f"--ckpt_path={last}", "--resume_changed=true", cwd=copied)
    assert mixed.returncode == 0, mixed.stderr


def test_fewer_rounds_than_were_bought_are_refused(copied: Path) -> None:
    done = ran(*SMALL, "--ckpt_path=last", "--acquisition.rounds=2", cwd=copied)
    assert done.returncode == 1
    assert "2 is less than the 3 purchases" in done.stderr.splitlines()[-1]
    done = ran(*SMALL, "--ckpt_path=last", cwd=copied)
    assert done.returncode == 0
    assert "has finished its 3 rounds; for more, raise the number" in done.stderr
