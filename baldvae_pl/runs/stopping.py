"""A run of several processes ends as one."""

import signal

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from baldvae_pl.runs.signals import Stopped, stop_on_signals


class StopTogether(Callback):
    """Ends the other processes of a run with the one that got the signal."""

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stop_on_signals()  # Lightning has just put its own handlers in their place

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        launcher = trainer.strategy.launcher
        if isinstance(exception, Stopped) and launcher is not None:
            launcher.kill(signal.SIGTERM)
