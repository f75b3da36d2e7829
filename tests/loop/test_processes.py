"""Several processes: the same scores, purchases and counts as one, and no process is waited for."""

import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, assert_same_state, baldvae, rounds_of

from baldvae_pl.loop.guards import check_agreement
from baldvae_pl.pool import Pool

RUN = Path("lightning_logs/digits/version_0")
UNTRAINED = [
    *SMALL,
    *("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0"),
    *("--data.steps_per_round=1", "--acquisition.complement=Duplicate"),
    "--data.scoring_batch_size=9",  # 1,297 images: 145 batches, uneven for 2 and 3 processes
]
"""The same weights whatever the number of processes, so that all else must be the same."""


def processes(number: int) -> list[str]:
    return ["--trainer.accelerator=cpu", f"--trainer.devices={number}", "--trainer.strategy=ddp"]


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / RUN / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("number", [2, 3])
def test_same_weights_same_run_with_any_number_of_processes(number: int, tmp_path: Path) -> None:
    alone, several = tmp_path / "alone", tmp_path / "several"
    for folder, how in ((alone, []), (several, processes(number))):
        folder.mkdir()
        done = baldvae(*UNTRAINED, *how, cwd=folder)
        assert done.returncode == 0, done.stderr
    tables = [folder / RUN / "acquisitions.csv" for folder in (alone, several)]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert "complement" in tables[0].read_text()
    states = [checkpoint(folder) for folder in (alone, several)]
    for key in ("state_dict", "PoolDataModule"):
        assert_same_state(states[0][key], states[1][key])
    one, other = rounds_of(alone / RUN), rounds_of(several / RUN)
    assert one["test_acc"].tolist() == other["test_acc"].tolist()
    for column in one:
        assert one[column].tolist() == pytest.approx(other[column].tolist(), abs=1e-5, nan_ok=True)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    for rounds, how in ((0, processes(2)), (1, []), (2, processes(3)), (3, processes(2))):
        resume = ["--ckpt_path=last"] * (rounds > 0)
        done = baldvae(*SMALL, *how, *resume, f"--acquisition.rounds={rounds}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert [run.name for run in (tmp_path / RUN).parent.iterdir()] == ["version_0"]
    rounds = rounds_of(tmp_path / RUN)
    assert rounds["labelled"].tolist() == [15, 40, 65, 90]
    # 500 test images, each counted once, give multiples of 1/500.
    for column in ("test_acc", "test_acc_mc"):
        assert ((rounds[column] * 500 + 1e-3) % 1 < 2e-3).all()
    bought = checkpoint(tmp_path)["PoolDataModule"]["pool"]["acquired_in"]
    assert torch.bincount(bought + 1).tolist() == [1297 - 90, 15, 25, 25, 25]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_run(rank: int, tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text(
        "import os, signal\n"
        "from baldvae_pl.acquisition import bald\n"
        "def function(log_probs_N_T_C):\n"
        f"    if os.environ.get('LOCAL_RANK', '0') == '{rank}':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return bald(log_probs_N_T_C)\n"
    )
    command = [*UNTRAINED, *processes(2), "--acquisition.function=dies.function"]
    began = time.perf_counter()
    done = baldvae(*command, cwd=tmp_path, timeout=120)
    assert done.returncode != 0
    assert time.perf_counter() - began < 90
    for _ in range(30):  # the other one ends too
        time.sleep(1)
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
        if "dies.function" not in listed.stdout:
            return
    pytest.fail("a process is left over")


def test_pools_that_differ_are_noticed() -> None:
    mine, theirs = Pool(5, (1, 2, 2)), Pool(5, (1, 2, 2))
    said = {"digest": mine.digest()}
    strategy = SimpleNamespace(broadcast=lambda _: said["digest"])
    trainer = SimpleNamespace(world_size=2, global_rank=1, current_epoch=3, strategy=strategy)
    each = SimpleNamespace(trainer=trainer)
    check_agreement(each, theirs)
    theirs.acquire(torch.tensor([4]), torch.tensor([0]), round=1)
    with pytest.raises(RuntimeError, match="after round 3 process 1 holds other pools"):
        check_agreement(each, theirs)
