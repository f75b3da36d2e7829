"""Starts runs in processes that have imported everything already, which takes seconds each time."""

import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from baldvae_pl import __main__ as command
from baldvae_pl.main import main

if TYPE_CHECKING:  # Windows lacks one of them
    from multiprocessing.context import ForkServerContext, SpawnContext


def get_ready(jobs: int) -> None:
    """Begin to import everything, in a process that starts runs, while this one plans them.

    Runs inherit OMP_NUM_THREADS and PYTHONSAFEPATH, which it sets.

    Args:
        jobs: Runs at once on this machine.
    """
    if jobs > 1:  # threads that share cores slow each other down
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    # A user's `random.py` here is not Python's.
    os.environ["PYTHONSAFEPATH"] = "1"
    if sys.platform == "linux":
        multiprocessing.get_context("forkserver").set_forkserver_preload(["baldvae_pl.cli.ready"])
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process alone
        forkserver.ensure_running()
        signal.signal(signal.SIGINT, handler)


def start(arguments: list[str], log: Path) -> BaseProcess:
    """Begin the command with these arguments; its output goes to the end of a file."""
    context: SpawnContext | ForkServerContext
    if sys.platform == "linux":
        # The server has imported everything, and has neither threads nor an accelerator, so that a
        # copy of it is as good as a new process. Libraries of macOS may not be copied.
        context = multiprocessing.get_context("forkserver")
    else:
        context = multiprocessing.get_context("spawn")
    process = context.Process(target=become_the_command, args=(arguments, log))
    process.start()
    return process


def become_the_command(arguments: list[str], log: Path) -> None:
    """Do in this process what ``python -m baldvae_pl`` does."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    # Lightning starts the other processes of a run by what stands here.
    sys.argv = [command.__file__, *arguments]
    main()
