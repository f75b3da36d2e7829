"""``python killed.py EVENT K ARGS...``: run baldvae and die by SIGKILL at the K-th EVENT."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from baldvae_pl import cli
from baldvae_pl.checkpoints import SafeCheckpointIO
from baldvae_pl.modules import Classifier
from baldvae_pl.posterior import MCDropout

EVENTS = {
    "training": (Classifier, "training_step", False),
    "scoring": (MCDropout, "__call__", False),
    "checkpoint": (SafeCheckpointIO, "save_checkpoint", True),
}


def die_at(kth: int, method: Callable[..., Any], afterwards: bool) -> Callable[..., Any]:
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


if __name__ == "__main__":
    event, kth, *arguments = sys.argv[1:]
    owner, name, afterwards = EVENTS[event]
    setattr(owner, name, die_at(int(kth), getattr(owner, name), afterwards))
    sys.argv = ["baldvae"]
    cli.main(arguments)
