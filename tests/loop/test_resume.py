"""A run that was stopped and resumed equals one that was not, bit for bit."""

import signal
from pathlib import Path

import pytest
from conftest import RUN, SMALL, assert_same_run, rounds_of
from killed import At, forked, ran


@pytest.mark.parametrize(
    ("at", "finished"),
    [
        pytest.param(At("training", 5, since=("round", 3)), 2, id="in round 2's training"),
        pytest.param(At("scoring", 1, since=("score", 2)), 1, id="in round 1's scoring"),
        pytest.param(
            At("checkpoint", 1, afterwards=True, since=("round", 2)),
            2,
            id="right after round 1's checkpoint",
        ),
    ],
)
def test_killed_run_resumes_to_the_same_state(
    at: At, finished: int, finished_run: Path, tmp_path: Path
) -> None:
    code = forked(SMALL, tmp_path, at=at)
    assert code == -signal.SIGKILL, (tmp_path / "output.txt").read_text()
    assert len(rounds_of(tmp_path / RUN)) == finished
    resumed = ran(*SMALL, "--ckpt_path=last", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert [run.name for run in (tmp_path / RUN).parent.iterdir()] == ["version_0"]
    assert_same_run(finished_run / RUN, tmp_path / RUN)


def test_finished_run_is_extended(finished_run: Path, tmp_path: Path) -> None:
    assert ran(*SMALL, "--acquisition.rounds=1", cwd=tmp_path).returncode == 0
    assert len(rounds_of(tmp_path / RUN)) == 2
    path = str(RUN / "checkpoints" / "last.ckpt")
    longer = ran(*SMALL, f"--ckpt_path={path}", cwd=tmp_path)
    assert longer.returncode == 0, longer.stderr
    assert_same_run(finished_run / RUN, tmp_path / RUN)


def test_same_seed_same_run_and_other_seed_another(finished_run: Path, tmp_path: Path) -> None:
    assert ran(*SMALL, cwd=tmp_path).returncode == 0
    assert_same_run(finished_run / RUN, tmp_path / RUN)
    assert ran(*SMALL, "--seed_everything=1", cwd=tmp_path).returncode == 0
    runs = finished_run / RUN, tmp_path / RUN.with_name("version_1")
    bought = [(run / "acquisitions.csv").read_bytes() for run in runs]
    assert bought[0] != bought[1]


def test_every_round_can_be_kept_and_resumed_from(finished_run: Path, tmp_path: Path) -> None:
    done = ran(*SMALL, "--checkpoint_every_round=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = {path.name for path in (tmp_path / RUN / "checkpoints").iterdir()}
    assert kept == {
        "last.ckpt",
        "previous.ckpt",
        "vae.ckpt",
        *(f"round={r}.ckpt" for r in range(4)),
    }
    again = ran(*SMALL, f"--ckpt_path={RUN / 'checkpoints' / 'round=0.ckpt'}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert_same_run(finished_run / RUN, tmp_path / RUN)
