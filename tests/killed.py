"""Run the command in a fork of this process, and kill it where it hurts.

A fork has imported everything already, which takes most of the time of a small run. Where a run has
several processes, Lightning's launcher gets forks too.
"""

import logging
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

import torch
from lightning.pytorch.strategies.launchers import subprocess_script

from baldvae_pl import oracle
from baldvae_pl.data.answers import Ledger
from baldvae_pl.loop import dashboard, keeping, scoring
from baldvae_pl.loop.rounds import ActiveLearning
from baldvae_pl.main import main
from baldvae_pl.modules import VAE, Classifier
from baldvae_pl.posterior import DropoutDraws
from baldvae_pl.runs import records
from baldvae_pl.runs.checkpoints import SafeCheckpointIO

EVENTS: dict[str, tuple[Any, str]] = {
    "rename": (Path, "replace"),
    "oracle": (oracle.KnownLabels, "__call__"),
    "answers": (Ledger, "_append"),
    "checkpoint": (SafeCheckpointIO, "save_checkpoint"),
    "csv": (records, "write_csv"),
    "vae epoch": (VAE, "on_train_epoch_end"),
    "scoring": (DropoutDraws, "__call__"),
    "training": (Classifier, "training_step"),
}
STARTS: dict[str, tuple[Any, str]] = {
    "round": (ActiveLearning, "on_train_epoch_start"),
    "score": (scoring, "score"),
}
"""What may have to begin before an event counts."""

ASKED = "asked.txt"


class At(NamedTuple):
    """Where a process is killed.

    Attributes:
        event: Of `EVENTS`.
        kth: Which of them, from 1.
        afterwards: After it, not before.
        since: Counted from the k-th start of this name in `STARTS`; else from the beginning.
    """

    event: str
    kth: int
    afterwards: bool = False
    since: tuple[str, int] | None = None

    def install(self) -> None:
        """Make this process kill itself there."""
        calls, begun = 0, 0
        owner, name = EVENTS[self.event]
        method = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += self.since is None or begun >= self.since[1]
            here = calls == self.kth
            if here and not self.afterwards:
                os.kill(os.getpid(), signal.SIGKILL)
            result = method(*args, **kwargs)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, counted)
        if self.since is not None:
            start_owner, start_name = STARTS[self.since[0]]
            start = getattr(start_owner, start_name)

            def started(*args: Any, **kwargs: Any) -> Any:
                nonlocal begun
                begun += 1
                return start(*args, **kwargs)

            setattr(start_owner, start_name, started)


def note_questions(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return an oracle's method that writes down what it was asked."""

    def wrapped(self: Any, indices: Any) -> Any:
        answers = method(self, indices)
        with Path(ASKED).open("a") as file:
            file.writelines(f"{index}\n" for index in indices.tolist())
        return answers

    return wrapped


def say_everything_to(output: int) -> None:
    """Undo, in the fork, what pytest does with what is printed, logged and warned of."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    for logger in map(logging.getLogger, ("lightning", "lightning.pytorch", "lightning.fabric")):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.stream = sys.stderr  # setStream flushes one that pytest has closed
    warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)


def run_and_exit(arguments: Sequence[str]) -> None:
    """Run the command in this fork, and end the fork as the command would end."""
    code = 70
    try:
        torch.set_num_threads(1)
        sys.argv = ["baldvae"]
        main(list(arguments))
        code = 0
    except SystemExit as exit:
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
        code = exit.code if isinstance(exit.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class ForkedProcess:
    """Stands for `subprocess.Popen` where Lightning starts the other processes of a run."""

    arguments: Sequence[str] = ()

    def __init__(self, command: Any, env: Mapping[str, str], cwd: Any) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.clear()
            os.environ.update(env)
            run_and_exit(self.arguments)

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that killed it, once it has ended."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Send a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)


def become_the_command(
    arguments: Sequence[str], folder: Path, at: At | None, pictures: bool
) -> None:
    """Run the command in this fork, in a folder, and end the fork."""
    os.setpgrp()
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    say_everything_to(output)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
    patched = oracle.KnownLabels
    patched.__call__ = note_questions(patched.__call__)  # type: ignore[method-assign]
    if pictures:
        keeping.log_pictures = dashboard.log_pictures
    if at is not None:
        at.install()
    ForkedProcess.arguments = arguments
    subprocess_script.subprocess.Popen = ForkedProcess  # type: ignore[assignment, misc]
    run_and_exit(arguments)


def forked(
    arguments: Sequence[str],
    folder: Path,
    at: At | None = None,
    when: Callable[[], bool] | None = None,
    after: float | None = None,
    signum: int = signal.SIGKILL,
    pictures: bool = False,
) -> int:
    """Run the command in a fork.

    Args:
        arguments: Of the command.
        folder: Where to run it; its output goes to ``output.txt`` there.
        at: Where it kills itself.
        when: It gets a signal once this is true,
        after: or after so many seconds.
        signum: Which signal.
        pictures: Draw those of TensorBoard, too, which takes half of the time of a small run.

    Returns:
        The exit code, or minus the signal that killed it.
    """
    process = os.fork()
    if process == 0:
        try:
            become_the_command(arguments, folder, at, pictures)
        finally:
            os._exit(71)  # a fork that fails before must not go on as a second pytest
    timer = Timer(after if after is not None else 300, os.kill, (process, signum))
    timer.start()
    if when is not None:
        wait_for(when, process)
        os.kill(process, signum)
    _, status = os.waitpid(process, 0)
    timer.cancel()
    return os.waitstatus_to_exitcode(status)


def wait_for(condition: Callable[[], bool], process: int | None = None) -> None:
    """Wait until something is true; a process that ends before makes it an error."""
    ends = time.perf_counter() + 200
    while not condition():
        assert time.perf_counter() < ends, "waited in vain"
        if process is not None:
            ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            assert ended is None, "it ended before"
        time.sleep(0.02)


def finish(arguments: Sequence[str], folder: Path) -> None:
    """Go on from whatever is there until the run is finished."""
    begun = any(folder.glob("lightning_logs/*/version_*"))
    code = forked([*arguments, *["--ckpt_path=last"] * begun], folder)
    assert code == 0, (folder / "output.txt").read_text()[-3000:]


def ran(*arguments: str, cwd: Path, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a fork, as `forked`; its output, errors too, is ``stderr``."""
    output = cwd / "output.txt"
    output.unlink(missing_ok=True)
    code = forked(arguments, cwd, **kwargs)
    said = output.read_text() if output.exists() else ""
    return subprocess.CompletedProcess(arguments, code, stderr=said)
