"""Run the command in a fork of this process, and kill it where it hurts."""

import logging
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Timer
from typing import Any

import torch

from baldvae_pl import oracle
from baldvae_pl.cli import app as cli
from baldvae_pl.modules.classifier import VAE, Classifier
from baldvae_pl.posterior import MCDropout
from baldvae_pl.runs import records
from baldvae_pl.runs.checkpoints import SafeCheckpointIO

EVENTS: dict[str, list[tuple[Any, str]]] = {
    "rename": [(Path, "replace")],
    "oracle": [(oracle.KnownLabels, "__call__")],
    "checkpoint": [(SafeCheckpointIO, "save_checkpoint")],
    "csv": [(records, "write_csv")],
    "vae epoch": [(VAE, "on_train_epoch_end")],
    "scoring": [(MCDropout, "__call__")],
    "training": [(Classifier, "training_step")],
}
ASKED = "asked.txt"


def die(kth: int, method: Callable[..., Any], afterwards: bool) -> Callable[..., Any]:
    """Return a method that kills its process at the k-th call."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == kth and not afterwards:
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(*args, **kwargs)
        if calls == kth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


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
                handler.setStream(sys.stderr)
    warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)


def forked(
    arguments: Sequence[str],
    folder: Path,
    at: tuple[str, int, bool] | None = None,
    after: float | None = None,
    signum: int = signal.SIGKILL,
) -> int:
    """Run the command in a fork: the imports, most of a small run's time, are done once.

    Args:
        arguments: Of the command.
        folder: Where to run it; its output goes to ``output.txt`` there.
        at: Event, k, and whether to be killed after it (else before it).
        after: Seconds until it gets a signal.
        signum: Which.

    Returns:
        The exit code, or minus the signal that killed it.
    """
    process = os.fork()
    if process == 0:
        code = 70
        try:
            os.chdir(folder)
            output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            say_everything_to(output)
            patched = oracle.KnownLabels
            patched.__call__ = note_questions(patched.__call__)  # type: ignore[method-assign]
            if at is not None:
                event, kth, afterwards = at
                for owner, name in EVENTS[event]:
                    setattr(owner, name, die(kth, getattr(owner, name), afterwards))
            sys.argv = ["baldvae"]
            torch.set_num_threads(1)
            cli.main(list(arguments))
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
    timer = Timer(after if after is not None else 600, os.kill, (process, signum))
    timer.start()
    _, status = os.waitpid(process, 0)
    timer.cancel()
    return os.waitstatus_to_exitcode(status)


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
