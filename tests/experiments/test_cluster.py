"""What `compare --slurm` sends, and what it refuses; tests/slow/test_slurm.py has a real Slurm."""

import pickle
import subprocess
from pathlib import Path

import pytest
from helpers import refusal

from baldvae_pl.experiments.cluster import Command
from baldvae_pl.main import main

GRID = ["compare", "--configs=digits", "--methods", "bald_o", "random", "--seeds", "0", "1"]


@pytest.fixture
def sent(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a pretended Slurm was given, in order."""
    programs, sent = elsewhere / "programs", elsewhere / "sent"
    for folder in (programs, sent):
        folder.mkdir()
    count = f"$(ls {sent} | wc -l)"
    sbatch = f'#!/bin/sh\nn={count}\ncp "$1" {sent}/$n\necho "Submitted batch job 7$n"\n'
    squeue = f"#!/bin/sh\ncat {elsewhere}/queued\n"
    (elsewhere / "queued").touch()
    for name, text in (("sbatch", sbatch), ("srun", "#!/bin/sh\n"), ("squeue", squeue)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return sent


def test_one_job_a_run_in_an_array_and_the_report_after_it(
    sent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*GRID, "--slurm", "time=60", "partition=gpu", "account=0012", "gpus_per_node=1"])
    assert "4 runs are sent as job 70, their report as job 71." in capsys.readouterr().out
    array, report = ((sent / name).read_text().splitlines() for name in ("0", "1"))
    for line in ("--time=60", "--partition=gpu", "--account=0012", "--requeue"):
        assert f"#SBATCH {line}" in array
        assert f"#SBATCH {line}" in report
    assert "#SBATCH --signal=USR2@90" in array
    assert "#SBATCH --gpus-per-node=1" in array
    assert not any("gpus" in line for line in report)
    assert "#SBATCH --array=0-3%4" in array
    assert "#SBATCH --dependency=afterany:70" in report
    jobs = Path("lightning_logs/compare/digits/slurm").glob("70_*_submitted.pkl")
    commands = [pickle.loads(path.read_bytes()).function for path in sorted(jobs)]
    logs = [str(command.log.relative_to(Path.cwd())) for command in commands]
    assert logs == [
        f"lightning_logs/compare/digits/seed_{seed}/digits+{method}.log"
        for seed in (0, 1)
        for method in ("bald_o", "random")
    ]
    assert commands[0].arguments[0] == "fit"
    assert commands[0].arguments[-1] == "--ckpt_path=last"
    assert commands[0].checkpoint().function == commands[0]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (["partition=gpu"], "how many minutes a job may take, such as time=60"),
        (["time=60", "gpu"], "gpu is no KEY=VALUE"),
        (["time=60", "setup=module"], "setup=module is no KEY=VALUE"),
        (["time=1:00:00"], "time must be a whole number, got 1:00:00"),
        (["time=60", "colour=red"], "Unavailable parameter"),
    ],
)
def test_what_cannot_be_sent_is_one_sentence(
    sent: Path, parameters: list[str], expected: str
) -> None:
    assert expected in refusal(*GRID, "--slurm", *parameters)
    assert list(sent.iterdir()) == []


def test_what_is_queued_already_is_not_sent_again(
    sent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*GRID, "--slurm", "time=60"])
    (sent.parent / "queued").write_text("12\n70\n70\n")
    main([*GRID, "--slurm", "time=60"])
    assert "Job 70 is not finished: nothing is sent." in capsys.readouterr().out
    assert len([*sent.iterdir()]) == 2


def test_if_the_report_is_refused_it_says_that_the_runs_are_sent(sent: Path) -> None:
    sbatch = sent.parent / "programs" / "sbatch"
    sbatch.write_text(sbatch.read_text().replace("cp ", "[ $n = 1 ] && exit 1; cp "))
    assert "The runs are sent already, as job 70." in refusal(*GRID, "--slurm", "time=60")


@pytest.mark.parametrize("other", [["--jobs=2"], ["--only=random:0"]])
def test_slurm_makes_all_runs_at_once(other: list[str]) -> None:
    said = refusal(*GRID, "--slurm", "time=60", *other)
    assert said.startswith("--slurm: goes with neither --only nor --jobs.")


def test_without_slurm_it_says_where_to_start_it(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(elsewhere))
    assert "there is no sbatch here" in refusal(*GRID, "--slurm", "time=60")


def test_a_command_that_fails_fails_its_job_and_says_why_in_its_log(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        Command(["report", str(tmp_path / "nothing")], tmp_path / "log")()
    assert "nothing" in (tmp_path / "log").read_text()
