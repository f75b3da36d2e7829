"""A run that was stopped and resumed equals one that was not, bit for bit."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from helpers import RUN, SMALL, assert_same_run, rounds_of
from killed import At, forked, ran


@pytest.mark.parametrize(
    ("at", "finished"),
    [
        pytest.param(At("training", 5, since=("round", 3)), 2, id="in round 2's training"),
        pytest.param(
            At("scoring", 1, since=("score", 2)),
            1,
            id="in round 1's scoring",
            marks=pytest.mark.slow,
        ),
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


def test_a_network_that_is_its_own_autoencoder_resumes_to_the_same_state(tmp_path: Path) -> None:
    run = [
        *(*SMALL, "--config=joint.yaml", "--model.network.width=4"),
        *("--acquisition.complement=AllNew", "--acquisition.rounds=2"),
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    done = ran(*run, cwd=whole)
    assert done.returncode == 0, done.stderr
    assert forked(run, parts, at=At("training", 5, since=("round", 2))) == -signal.SIGKILL
    resumed = ran(*run, "--ckpt_path=last", cwd=parts)
    assert resumed.returncode == 0, resumed.stderr
    folder = RUN.parent.with_name("digits+joint") / "version_0"
    assert rounds_of(whole / folder)["complemented"].sum() == 50
    assert_same_run(whole / folder, parts / folder)


def one_at_a_time(folder: Path) -> list[str]:
    """An oracle in the working folder that answers one image after the other, and who notes it all.

    A file ``end`` holds a round and a number of answers: having given so many, it does what the
    file's last word says.
    """
    (folder / "own.py").write_text(
        "import json, os, signal\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from baldvae_pl.acquisition import bald\n"
        "from baldvae_pl.data.sources import Digits\n"
        "from baldvae_pl.oracle import Answer, NotYet, Oracle\n"
        "\n"
        "def note(file, line):\n"
        "    with Path(file).open('a') as open_file:\n"
        "        open_file.write(json.dumps(line) + '\\n')\n"
        "\n"
        "class OneAtATime(Oracle):\n"
        "    def answer(self, question):\n"
        "        labels = Digits()(None).train.labels\n"
        "        note('asked.jsonl', [question.round, *question.indices.tolist()])\n"
        "        end = Path('end').read_text().split() if Path('end').exists() else []\n"
        "        for given, index in enumerate(question.indices.tolist()):\n"
        "            if end[:2] == [str(question.round), str(given)]:\n"
        "                if end[2] == 'wait':\n"
        "                    raise NotYet('ask again tomorrow.')\n"
        "                os.kill(os.getpid(), signal.SIGKILL)\n"
        "            yield Answer(index, int(labels[index]))\n"
        "\n"
        "def score(log_probs_N_T_C):\n"
        "    if len(log_probs_N_T_C) > 8:\n"  # no trial
        "        note('scored.jsonl', len(log_probs_N_T_C))\n"
        "    return bald(log_probs_N_T_C)\n"
        "\n"
        "class Noting(torch.optim.Adam):\n"
        "    def step(self, *args, **kwargs):\n"
        "        note('steps.jsonl', 1)\n"
        "        return super().step(*args, **kwargs)\n"
    )
    return [
        *("--data.oracle=own.OneAtATime", "--acquisition.function=own.score"),
        "--model.optimizer=own.Noting",
    ]


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_done_once(folder: Path, rounds: int) -> None:
    """So many rounds were trained, and all but the last scored, once each."""
    assert len(lines_of(folder / "steps.jsonl")) == 8 * rounds
    assert sum(lines_of(folder / "scored.jsonl")) == 1297 * min(rounds, 3)


def test_a_run_killed_between_two_answers_asks_for_the_rest_alone(
    finished_run: Path, tmp_path: Path
) -> None:
    run = [*SMALL, *one_at_a_time(tmp_path)]
    (tmp_path / "end").write_text("2 24 die")
    assert forked(run, tmp_path) == -signal.SIGKILL, (tmp_path / "output.txt").read_text()
    answers = [line for line in lines_of(tmp_path / RUN / "answers.jsonl") if "image" in line]
    *_, question = lines_of(tmp_path / "asked.jsonl")
    asked = question[1:]
    assert len(asked) == 25
    assert [line["image"] for line in answers if line["round"] == 2] == asked[:24]
    assert_done_once(tmp_path, rounds=2)
    (tmp_path / "end").unlink()
    resumed = ran(*run, "--ckpt_path=last", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    questions = lines_of(tmp_path / "asked.jsonl")
    assert [question[0] for question in questions] == [0, 1, 2, 2, 3]
    assert questions[3][1:] == asked[24:]
    assert_done_once(tmp_path, rounds=4)
    assert_same_run(finished_run / RUN, tmp_path / RUN)


@pytest.mark.parametrize(
    ("round", "given"),
    [
        (2, 10),
        pytest.param(0, 7, marks=pytest.mark.slow),
        pytest.param(0, 0, marks=pytest.mark.slow),
        pytest.param(2, 0, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_that_waits_for_answers_goes_on_to_the_same_bits(
    round: int, given: int, finished_run: Path, tmp_path: Path
) -> None:
    run = [*SMALL, *one_at_a_time(tmp_path)]
    (tmp_path / "end").write_text(f"{round} {given} wait")
    waits = ran(*run, cwd=tmp_path)
    assert waits.returncode == 75, waits.stderr
    assert "baldvae: waiting: ask again tomorrow." in waits.stderr
    assert "Go on with the same command and --ckpt_path last." in waits.stderr
    assert "Traceback" not in waits.stderr
    (tmp_path / "end").write_text(f"{round} 0 wait")  # not yet either
    waits = ran(*run, "--ckpt_path=last", cwd=tmp_path)
    assert waits.returncode == 75, waits.stderr
    (tmp_path / "end").unlink()
    done = ran(*run, "--ckpt_path=last", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = lines_of(tmp_path / RUN / "answers.jsonl")
    images = [line["image"] for line in lines if "image" in line]
    assert len(images) == len(set(images)) == 90
    assert [run.name for run in (tmp_path / RUN).parent.iterdir()] == ["version_0"]
    assert_done_once(tmp_path, rounds=4)
    assert_same_run(finished_run / RUN, tmp_path / RUN)
