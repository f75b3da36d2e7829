"""Signals end a run within seconds, whatever it is doing, and it says how to go on."""

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

HOW_TO_GO_ON = (
    "Go on from the last finished round with the same command and --ckpt_path last; `compare` "
    "needs the same command only."
)

PATIENCE = 5.0
"""Seconds that a shutdown may take."""

WITH_PARENT = "BALDVAE_ENDS_WITH_STDIN"
"""Set in a process that shall end with the one that began it, whose end closes its input."""

WATCH = "baldvae: signals"
"""Name of the thread that watches."""


STOPPING = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
]
"""Ctrl-C, a terminal that closes, a machine that shuts down, and the warnings of schedulers."""


class Stopped(SystemExit):
    """Ends the process with 128 + the signal's number: 143 for SIGTERM, 130 for Ctrl-C."""


def stop_on_signals() -> None:
    """Make these signals raise `Stopped` wherever the program is.

    Lightning's own handling of SIGTERM waits for the end of a batch, and does not see one while a
    callback scores or an oracle is asked; on a cluster its handling of SIGUSR1 would leave a
    checkpoint from the middle of a round. Python's own does nothing before a call into a library
    returns, such as one that waits for another process; so a thread watches too.
    """
    for signum in STOPPING:
        if signum != getattr(signal, "SIGHUP", None) or signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, stop)
    watch()


def stop(signum: int, _: FrameType | None) -> None:
    """Raise `Stopped`, once: no second signal disturbs the shutdown."""
    ignore_signals()
    raise Stopped(128 + signum)


def ignore_signals() -> None:
    """Let no more signals end the process."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)


def watch() -> None:
    """End the process some seconds after a signal, or at once when rank 0 has died.

    Where `Stopped` is caught, as by a destructor, where the shutdown hangs, or where the main
    thread is in a library that returns to Python only when another process answers, the process
    ends all the same: nothing is lost by that, as no file is ever half written.
    """
    if any(thread.name == WATCH for thread in threading.enumerate()):
        return
    arrives, sends = socket.socketpair()
    sends.setblocking(False)
    signal.set_wakeup_fd(sends.fileno(), warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):  # workers of a loader are ended by signals of their own
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    # Kept by the thread: a descriptor that is closed would be another file's soon.
    threading.Thread(target=watch_for, args=(arrives, sends), name=WATCH, daemon=True).start()


def end_with_parent() -> None:
    """Stop when the process that began this one is gone, however it ended."""
    if WITH_PARENT not in os.environ:
        return

    def wait() -> None:
        with suppress(OSError):
            while os.read(0, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="baldvae: parent", daemon=True).start()


def watch_for(arrives: socket.socket, _: socket.socket) -> None:
    """Read the numbers of signals as they come, see `watch`."""
    rank_0 = os.getppid() if os.environ.get("LOCAL_RANK", "0") != "0" else None
    arrives.settimeout(1.0)
    while True:
        with suppress(TimeoutError):
            for signum in arrives.recv(64):
                if signum in STOPPING and signal.getsignal(signum) != signal.SIG_DFL:
                    time.sleep(PATIENCE)
                    end_at_once(128 + signum)
        if rank_0 is not None and os.getppid() != rank_0:
            os._exit(1)


def end_at_once(code: int) -> None:
    """End the process without any cleaning up."""
    say_how_to_go_on()
    os._exit(code)


def say_how_to_go_on(command: str = "") -> None:
    """Print the one sentence, on the first of several processes, and on the outermost."""
    if WITH_PARENT in os.environ:
        return
    how = "Give the same command to go on." if command == "label" else HOW_TO_GO_ON
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    if next((rank for rank in ranks if rank is not None), "0") == "0":
        print(f"baldvae: stopped. {how}", file=sys.stderr, flush=True)
