"""SIGTERM and Ctrl-C end a run within seconds, whatever it is doing, and say how to go on."""

import os
import signal
import sys
from threading import Timer
from types import FrameType

HOW_TO_GO_ON = (
    "Go on from the last finished round with the same command and --ckpt_path last; `compare` "
    "needs the same command only."
)

PATIENCE = 5.0
"""Seconds that a shutdown may take."""


class Stopped(SystemExit):
    """Ends the process with 128 + the signal's number: 143 for SIGTERM, 130 for Ctrl-C."""


def stop_on_signals() -> None:
    """Make both signals raise `Stopped` wherever the program is.

    Lightning's own handling of SIGTERM waits for the end of a batch, and does not see one while a
    callback scores or an oracle is asked.
    """
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)


def stop(signum: int, _: FrameType | None) -> None:
    """Raise `Stopped`, once: no second signal disturbs the shutdown.

    Where it is caught, as by a destructor, or the shutdown hangs, the process ends all the same:
    nothing is lost by that, as no file is ever half written.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    last_resort = Timer(PATIENCE, end_at_once, (128 + signum,))
    last_resort.daemon = True
    last_resort.start()
    raise Stopped(128 + signum)


def end_at_once(code: int) -> None:
    """End the process without any cleaning up."""
    say_how_to_go_on()
    os._exit(code)


def say_how_to_go_on() -> None:
    """Print the one sentence, on the first of several processes."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    if next((rank for rank in ranks if rank is not None), "0") == "0":
        print(f"baldvae: stopped. {HOW_TO_GO_ON}", file=sys.stderr, flush=True)
