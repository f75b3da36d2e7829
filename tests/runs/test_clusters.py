"""Schedulers that warn a job by a signal, end it, and give its command again."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from helpers import RUN, SMALL, assert_same_run, rounds_of
from killed import At, ran

SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "1",
    "SLURM_JOB_NAME": "train",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "localhost",
    "SLURM_JOB_NODELIST": "localhost",
}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "5f2c"}  # what tells its jobs apart; ranks are another matter
COUNTS = {"slurm": "SLURM_RESTART_COUNT", "torchrun": "TORCHELASTIC_RESTART_COUNT"}


@pytest.fixture(params=["slurm", pytest.param("torchrun", marks=pytest.mark.slow)])
def scheduler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a job."""
    environment = SLURM if request.param == "slurm" else TORCHRUN
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    name: str = request.param
    return name


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGUSR1,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR2, marks=pytest.mark.slow),
        pytest.param(signal.SIGXCPU, marks=pytest.mark.slow),
    ],
)
def test_a_warning_ends_a_job_as_a_signal_does_and_it_goes_on_when_it_is_requeued(
    signum: int, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "long.py").write_text(
        "import pathlib, time\n"
        "from torch.optim import Adam\n"
        "class Noting(Adam):\n"
        "    steps = 0\n"
        "    def step(self, *args, **kwargs):\n"
        "        Noting.steps += 1\n"
        "        if Noting.steps == 20 and not pathlib.Path('there').exists():\n"  # in round 2
        "            pathlib.Path('there').touch()\n"
        "            time.sleep(60)\n"
        "        return super().step(*args, **kwargs)\n"
    )
    job = [*SMALL, "--model.optimizer=long.Noting"]
    warned = ran(*job, cwd=tmp_path, when=(tmp_path / "there").exists, signum=signum)
    assert warned.returncode == 128 + signum, warned.stderr
    assert "--ckpt_path last" in warned.stderr.splitlines()[-1]
    assert len(rounds_of(tmp_path / RUN)) == 2
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again = ran(*job, cwd=tmp_path)  # the same command, without --ckpt_path
    assert again.returncode == 0, again.stderr
    assert "Job 77 was begun again: it goes on with" in again.stderr
    assert [path.name for path in (tmp_path / RUN).parent.iterdir()] == ["version_0"]
    one, other = (folder / RUN / "acquisitions.csv" for folder in (tmp_path, finished_run))
    assert one.read_bytes() == other.read_bytes()


def test_only_the_same_job_with_the_same_settings_goes_on_by_itself(
    scheduler: str, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = ran(*SMALL, cwd=tmp_path, at=At("training", 5, since=("round", 3)))
    assert killed.returncode == -signal.SIGKILL
    runs = (tmp_path / RUN).parent

    def versions() -> list[str]:
        return sorted(path.name for path in runs.iterdir())

    short = [*SMALL, "--acquisition.rounds=0"]
    # The first start of a job, another job, other settings: runs of their own.
    assert ran(*short, cwd=tmp_path).returncode == 0
    assert versions() == ["version_0", "version_1"]
    shutil.rmtree(runs / "version_1")
    monkeypatch.setenv(COUNTS[scheduler], "1")
    assert ran(*short, "--acquisition.query_size=5", cwd=tmp_path).returncode == 0
    assert versions() == ["version_0", "version_1"]
    with monkeypatch.context() as other:
        other.setenv("SLURM_JOB_ID" if scheduler == "slurm" else "TORCHELASTIC_RUN_ID", "78")
        assert ran(*short, cwd=tmp_path).returncode == 0
    assert versions() == ["version_0", "version_1", "version_2"]
    again = ran(*SMALL, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert versions() == ["version_0", "version_1", "version_2"]
    assert_same_run(tmp_path / RUN, finished_run / RUN)


def test_a_checkpoint_that_the_scheduler_left_is_not_taken(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    for folder in (tmp_path, tmp_path / "lightning_logs" / "digits"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(finished_run / RUN / "checkpoints" / "last.ckpt", folder / "hpc_ckpt_1.ckpt")
    done = ran(*SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / RUN, finished_run / RUN)


def test_a_checkpoint_from_the_middle_of_a_round_is_refused(tmp_path: Path) -> None:
    (tmp_path / "often.yaml").write_text(
        "trainer:\n"
        "  callbacks:\n"
        "    class_path: ModelCheckpoint\n"
        "    init_args: {every_n_train_steps: 4, dirpath: often, save_top_k: -1,\n"
        "                filename: '{step}'}\n"
    )
    files = [*SMALL, "--config=often.yaml", "--acquisition.rounds=1"]
    assert ran(*files, cwd=tmp_path).returncode == 0
    for name in ("step=4.ckpt", "step=12.ckpt", "step=16.ckpt"):
        said = ran(*files, f"--ckpt_path=often/{name}", cwd=tmp_path)
        assert said.returncode == 1
        assert f"often/{name} was made in the middle of a round" in said.stderr.splitlines()[-1]


def test_a_callback_that_leaves_state_elsewhere_is_refused(tmp_path: Path) -> None:
    callback = ["--trainer.callbacks=OnExceptionCheckpoint", "--trainer.callbacks.dirpath=x"]
    said = ran(*SMALL, *callback, cwd=tmp_path)
    assert said.returncode == 1
    assert "--trainer.callbacks: OnExceptionCheckpoint" in said.stderr.splitlines()[-1]


def test_which_code_made_a_checkpoint_is_looked_at(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run / "lightning_logs", tmp_path / "lightning_logs")
    last = tmp_path / RUN / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    made = checkpoint["callbacks"]["RunSettings"]["code"]
    assert len(made) == 12
    checkpoint["callbacks"]["RunSettings"]["code"] = "0123456789ab"
    torch.save(checkpoint, last)
    longer = [*SMALL, "--ckpt_path=last", "--acquisition.rounds=4"]
    said = ran(*longer, cwd=tmp_path)
    assert said.returncode == 1
    sentence = said.stderr.splitlines()[-1]
    assert "was made with other code of baldvae" in sentence
    assert f"(its digest is 0123456789ab, of this one {made})" in sentence
    assert ran(*longer, "--resume_changed=true", cwd=tmp_path).returncode == 0
