"""`baldvae label`: two processes that begin, go on and end as one."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import refusal
from people import desk, until, write_digits

from baldvae_pl.labelling.command import Fit, experiment_of, newest, sets_an_oracle, token_of
from baldvae_pl.labelling.curve import has_flattened
from baldvae_pl.runs.folder import RunFolder


def test_the_page_needs_no_torch() -> None:
    code = (
        "import sys, baldvae_pl.labelling.command as _;"
        "print({'torch', 'lightning', 'pandas', 'jsonargparse'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_it_finds_the_runs_that_fit_makes(elsewhere: Path) -> None:
    (elsewhere / "a.yaml").write_text("data: {root: x}\n")
    (elsewhere / "b.yaml").write_text("trainer: {default_root_dir: runs}\n")
    logs = elsewhere / "lightning_logs"
    assert experiment_of(["--config=a.yaml"]) == logs / "a"
    assert experiment_of(["-c", "a.yaml", "--config", "shipped.yaml"]) == logs / "a+shipped"
    assert experiment_of([]) == logs / "default"
    here = elsewhere / "runs" / "lightning_logs"
    assert experiment_of(["--config=a.yaml", "--config=b.yaml"]) == here / "a+b"
    given = ["--config=b.yaml", "--trainer.default_root_dir", str(elsewhere / "other")]
    assert experiment_of(given) == elsewhere / "other" / "lightning_logs" / "b"


def test_the_newest_run_with_a_question_is_shown(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for number in (2, 10):
        (tmp_path / f"version_{number}").mkdir()
        (tmp_path / f"version_{number}" / "question.json").touch()
    (tmp_path / "version_11").mkdir()  # asks nobody
    assert newest(tmp_path) == RunFolder(tmp_path / "version_10")


def test_the_token_is_private_and_stays_the_same(tmp_path: Path) -> None:
    token = token_of(tmp_path / "runs")
    assert len(token) >= 43
    assert token_of(tmp_path / "runs") == token
    path = tmp_path / "runs" / ".page_token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("short")
    assert token_of(tmp_path / "runs") not in (token, "short")
    assert token_of(tmp_path / "others") != token


def test_a_port_in_use_is_one_sentence(elsewhere: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        said = refusal("label", "--config=digits.yaml", "--port", port)
    assert said == f"--port: {port} on 127.0.0.1 cannot be used (it is in use). Give another."


def test_an_address_of_another_machine_is_one_sentence(elsewhere: Path) -> None:
    said = refusal("label", "--host", "203.0.113.7", "--port", "8123")
    assert said.startswith("--port: 8123 on 203.0.113.7 cannot be used")


@pytest.mark.parametrize(("code", "ends"), [(0, None), (3, 3), (75, 75), (-9, 137)])
def test_they_end_with_the_same_exit_code(
    code: int, ends: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = Fit([])
    how = f"os.kill(os.getpid(), {-code})" if code < 0 else f"sys.exit({code})"
    fit.command = [sys.executable, "-c", f"import os, sys; {how}"]
    if ends is None:
        fit.run()
        assert fit.says() == {"alive": False, "ended": "The run is finished."}
    else:
        with pytest.raises(SystemExit) as end:
            fit.run()
        assert end.value.code == ends
        assert ("was killed by signal 9" in capsys.readouterr().err) == (code < 0)


@pytest.mark.parametrize(
    ("oracle", "given", "theirs"),
    [
        ("", [], False),
        ("data: {oracle: {class_path: People, init_args: {wait: false}}}", [], False),
        ("data: {oracle: {class_path: baldvae_pl.LabelStudio}}", [], True),
        ("data: {oracle: desk.Desk}", [], True),
        ("", ["--data.oracle=SimulatedPerson"], True),
    ],
)
def test_an_oracle_of_the_users_is_left_alone(
    elsewhere: Path, oracle: str, given: list[str], theirs: bool
) -> None:
    (elsewhere / "a.yaml").write_text(oracle)
    assert sets_an_oracle(["--config=a.yaml", *given]) == theirs
    assert ("--data.oracle.wait=true" in Fit([], theirs).command) != theirs


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGKILL,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGTERM)),
    ],
)
def test_the_training_process_ends_with_the_page(tmp_path: Path, signum: int) -> None:
    write_digits(tmp_path / "digits", 60)
    with desk(tmp_path) as office:
        office.start()
        assert office.process is not None
        until(lambda: office.runs and (office.runs[-1] / "question.json").exists(), "a question")
        children = Path(f"/proc/{office.process.pid}/task/{office.process.pid}/children")
        (child,) = map(int, children.read_text().split())
        os.kill(office.process.pid, signum)
        assert office.process.wait(timeout=20) in (-9, 128 + signum)
        until(lambda: not alive(child), "the end of the training process", 20)


def test_what_is_wrong_with_the_settings_is_said_by_the_training_process(tmp_path: Path) -> None:
    with desk(tmp_path, "--data.root=gone") as office:
        office.start()
        assert office.process is not None
        assert office.process.wait(timeout=60) == 1
        assert "baldvae: error: --data.root: there is no folder 'gone'" in office.log.read_text()


def test_a_curve_has_flattened_after_five_rounds_without_a_better_one() -> None:
    assert not has_flattened([])
    assert not has_flattened([0.5] * 5)
    assert has_flattened([0.5] * 6)
    assert has_flattened([0.5, 0.8, 0.7, 0.8, 0.6, 0.7, 0.79])
    assert not has_flattened([0.5, 0.8, 0.7, 0.8, 0.6, 0.7, 0.81])
