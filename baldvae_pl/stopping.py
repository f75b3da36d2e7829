"""SIGTERM and Ctrl-C end a run within seconds, whatever it is doing, and say how to go on."""

import signal
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer

HOW_TO_GO_ON = "Go on from the last finished round with the same command and --ckpt_path last."


class Stopped(SystemExit):
    """Ends the process with 128 + the signal's number: 143 for SIGTERM, 130 for Ctrl-C."""


def stop_on_signals() -> None:
    """Make both signals raise `Stopped` wherever the program is."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)


def stop(signum: int, _: FrameType | None) -> None:
    """Raise `Stopped`, once: no second signal disturbs the shutdown."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(128 + signum)


class StopOnSignals(Callback):
    """Keeps SIGTERM ours: Lightning would wait for the end of a batch, and never while scoring."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stop_on_signals()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        launcher = trainer.strategy.launcher
        if isinstance(exception, Stopped) and launcher is not None:
            launcher.kill(signal.SIGTERM)
