"""Several processes: the same scores, purchases and counts as one, and no process is waited for."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from helpers import RUN, SMALL, UNTRAINED, assert_same_state, baldvae, rounds_of
from killed import forked, ran, wait_for

from baldvae_pl.loop.guards import check_agreement
from baldvae_pl.pool import Pool


def processes(number: int) -> list[str]:
    return ["--trainer.accelerator=cpu", f"--trainer.devices={number}", "--trainer.strategy=ddp"]


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / RUN / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("number", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_same_weights_same_run_with_any_number_of_processes(number: int, tmp_path: Path) -> None:
    alone, several = tmp_path / "alone", tmp_path / "several"
    for folder, how in ((alone, []), (several, processes(number))):
        folder.mkdir()
        done = ran(*UNTRAINED, *how, cwd=folder)
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


@pytest.mark.slow
def test_two_processes_look_at_the_same_targets_and_points(tmp_path: Path) -> None:
    geometric = [
        *("--acquisition.function=EPIG", "--acquisition.selection=ClusterMargin"),
        *("--acquisition.initial_selection=Typical", "--acquisition.rounds=1"),
        # No VAE: two processes train another one.
        "--acquisition.selection.space=images",
        "--acquisition.initial_selection.space=images",
    ]
    alone, several = tmp_path / "alone", tmp_path / "several"
    for folder, how in ((alone, []), (several, processes(2))):
        folder.mkdir()
        done = baldvae(*UNTRAINED, *geometric, *how, cwd=folder)
        assert done.returncode == 0, done.stderr
    tables = [folder / RUN / "acquisitions.csv" for folder in (alone, several)]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert rounds_of(alone / RUN)["labelled"].tolist() == [15, 40]


@pytest.mark.slow
def test_informed_complements_are_the_same_with_two_processes(tmp_path: Path) -> None:
    # `Mixed` makes one of each parent, whatever the untrained classifier thinks of it.
    informed = ["--acquisition.complement=Mixed", "--acquisition.complement.threshold=0.0"]
    alone, both = tmp_path / "alone", tmp_path / "both"
    same_vae = f"--vae.ckpt_path={alone / RUN / 'checkpoints' / 'vae.ckpt'}"
    for folder, how in ((alone, []), (both, [*processes(2), same_vae])):
        folder.mkdir()
        done = baldvae(*UNTRAINED, *informed, *how, "--acquisition.rounds=1", cwd=folder)
        assert done.returncode == 0, done.stderr
    states = [checkpoint(folder)["PoolDataModule"] for folder in (alone, both)]
    assert_same_state(*states)
    assert len(states[0]["pool"]["generated"]["labels"]) > 0
    one, other = rounds_of(alone / RUN), rounds_of(both / RUN)
    for column in (c for c in one if c.startswith("complement")):
        assert one[column].tolist() == pytest.approx(other[column].tolist(), nan_ok=True)


@pytest.mark.slow
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


@pytest.mark.slow
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


NOTES = """
import os, pathlib, time
from baldvae_pl.data.sources import Digits

def source(root):
    pathlib.Path(f"rank{os.environ.get('LOCAL_RANK', '0')}").write_text(str(os.getpid()))
    return Digits()(root)

def ask(indices):
    pathlib.Path("asked").touch()
    while pathlib.Path("wait").exists():
        time.sleep(0.05)
    return Digits()(None).train.labels[indices]
"""


def noting(folder: Path) -> list[str]:
    """A module in the working folder whose functions say which process has come how far."""
    (folder / "noting.py").write_text(NOTES)
    return [*UNTRAINED, "--data.source=noting.source", "--data.oracle=noting.ask"]


def is_there(process: int) -> bool:
    listed = subprocess.run(["ps", "-o", "stat=", str(process)], capture_output=True, check=False)
    return listed.stdout.strip()[:1] not in (b"", b"Z")


@pytest.mark.slow
def test_an_oracle_may_take_longer_than_processes_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(
        "trainer:\n"
        "  strategy:\n"
        "    class_path: lightning.pytorch.strategies.DDPStrategy\n"
        "    init_args: {timeout: '0:00:05', process_group_backend: gloo}\n"
    )
    command = [*noting(tmp_path), *processes(2)[:2], "--config=short.yaml"]
    (tmp_path / "wait").touch()

    def answer() -> None:
        wait_for((tmp_path / "asked").exists)
        time.sleep(9)
        (tmp_path / "wait").unlink()

    with ThreadPoolExecutor() as pool:
        answered = pool.submit(answer)
        done = ran(*command, cwd=tmp_path)
        answered.result()
    assert done.returncode == 0, done.stderr
    run = tmp_path / "lightning_logs" / "digits+short" / "version_0"
    assert rounds_of(run)["labelled"].tolist() == [15, 40, 65, 90]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_waits_for_another_one_hears_a_signal(rank: int, tmp_path: Path) -> None:
    command = [*noting(tmp_path), *processes(2)]
    (tmp_path / "wait").touch()
    ended = []

    def end() -> bool:
        if not (tmp_path / "asked").exists():
            return False
        time.sleep(1)  # so that rank 1 waits
        ended.append(time.perf_counter())
        if rank == 0:
            return True
        os.kill(int((tmp_path / "rank1").read_text()), signal.SIGTERM)
        wait_for(lambda: not is_there(int((tmp_path / "rank1").read_text())))
        return True  # rank 0 gets one too, which waits for a person

    done = ran(*command, cwd=tmp_path, when=end, signum=signal.SIGTERM)
    assert done.returncode == 143, done.stderr
    assert time.perf_counter() - ended[0] < 15
    wait_for(lambda: not is_there(int((tmp_path / "rank1").read_text())))


def test_no_process_outlives_the_first_one_while_they_look_for_each_other(tmp_path: Path) -> None:
    command = [*noting(tmp_path), *processes(2)]
    killed = ran(*command, cwd=tmp_path, when=(tmp_path / "rank1").exists)
    assert killed.returncode == -signal.SIGKILL
    began = time.perf_counter()
    wait_for(lambda: not is_there(int((tmp_path / "rank1").read_text())))
    assert time.perf_counter() - began < 10


def by_torchrun(arguments: Sequence[str], folder: Path) -> Callable[[], list[int]]:
    """Start two nodes with a process each, as torchrun does; the function waits for their ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **{"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_WORLD_SIZE": "2"},
        **{"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": "0"},
        **{"TORCHELASTIC_MAX_RESTARTS": "0", "TORCHELASTIC_USE_AGENT_STORE": "False"},
    }
    pool, ends = ThreadPoolExecutor(), []
    for node in range(2):
        with pytest.MonkeyPatch.context() as patch:
            ranks = {"RANK": str(node), "GROUP_RANK": str(node)}
            for name, value in {**shared, **ranks}.items():
                patch.setenv(name, value)
            ends.append(pool.submit(forked, [*arguments, *NODES], folder))
            time.sleep(0.5)  # the fork has its environment by then
    return lambda: [end.result() for end in ends]


NODES = ["--trainer.accelerator=cpu", "--trainer.num_nodes=2", "--trainer.strategy=ddp"]


def test_two_nodes_buy_what_one_process_buys(tmp_path: Path) -> None:
    folders = tmp_path / "alone", tmp_path / "nodes"
    for folder in folders:
        folder.mkdir()
    assert ran(*UNTRAINED, cwd=folders[0]).returncode == 0
    ended = by_torchrun(UNTRAINED, folders[1])()
    assert ended == [0, 0], (folders[1] / "output.txt").read_text()
    tables = [folder / RUN / "acquisitions.csv" for folder in folders]
    assert tables[0].read_bytes() == tables[1].read_bytes()


DIES = """
import os, pathlib, signal
from baldvae_pl.acquisition import bald
from torch.optim import SGD

def die(calls):
    there = pathlib.Path("died")
    if os.environ.get("RANK") == "1" and calls == WHEN and not there.exists():
        there.touch()
        os.kill(os.getpid(), signal.SIGKILL)

calls = 0
def function(log_probs_N_T_C):
    global calls
    calls += 1
    die(calls)
    return bald(log_probs_N_T_C)

class Optimizer(SGD):
    calls = 0
    def step(self, *args, **kwargs):
        Optimizer.calls += 1
        die(Optimizer.calls)
        return super().step(*args, **kwargs)
"""


@pytest.mark.parametrize(
    ("options", "when"),
    [
        pytest.param(["--acquisition.function=dies.function"], 200, marks=pytest.mark.slow),
        (["--model.optimizer=dies.Optimizer", "--model.optimizer.lr=0"], 3),
    ],
)
def test_a_node_that_dies_ends_the_run_with_a_sentence_and_it_goes_on(
    options: list[str], when: int, tmp_path: Path
) -> None:
    alone, nodes = tmp_path / "alone", tmp_path / "nodes"
    for folder in (alone, nodes):
        folder.mkdir()
    assert ran(*UNTRAINED, cwd=alone).returncode == 0
    (nodes / "dies.py").write_text(DIES.replace("WHEN", str(when)))
    assert by_torchrun([*UNTRAINED, *options], nodes)() == [1, -9]
    said = (nodes / "output.txt").read_text()
    assert "baldvae: error: --trainer.devices: the processes of this run do not find" in said
    assert "Traceback" not in said
    assert 0 < len(rounds_of(nodes / RUN)) < 4
    ended = by_torchrun([*UNTRAINED, *options, "--ckpt_path=last"], nodes)()
    assert ended == [0, 0], (nodes / "output.txt").read_text()
    tables = [folder / RUN / "acquisitions.csv" for folder in (alone, nodes)]
    assert tables[0].read_bytes() == tables[1].read_bytes()


@pytest.mark.slow
def test_nodes_wait_together_for_their_turn_to_train_a_shared_vae(tmp_path: Path) -> None:
    vae = tmp_path / "vaes" / "one.ckpt"
    vae.parent.mkdir()
    first = ran(*SMALL, f"--vae.shared_path={vae}", "--acquisition.rounds=0", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    trained, content = vae.rename(vae.with_name("trained")), vae.with_name(".one.ckpt.lock")
    with FileLock(content):  # another run trains it
        wait = by_torchrun([*SMALL, f"--vae.shared_path={vae}"], tmp_path)
        time.sleep(6)
        trained.rename(vae)
    assert wait() == [0, 0], (tmp_path / "output.txt").read_text()
    runs = sorted((tmp_path / RUN).parent.iterdir())
    assert [run.name for run in runs] == ["version_0", "version_1"]
    assert not (runs[1] / "checkpoints" / "vae.ckpt").exists()  # it did not train one of its own
    assert rounds_of(runs[1])["labelled"].tolist() == [15, 40, 65, 90]


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
