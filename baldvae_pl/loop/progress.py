"""The progress bar: rounds, labels, accuracy, and the work between rounds."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from typing_extensions import override

from baldvae_pl.data.question_file import write_json
from baldvae_pl.runs.folder import RunFolder

T = TypeVar("T")


def track(trainer: Trainer, work: Sequence[T], description: str) -> Iterator[T]:
    """Yield the work, and let each callback that shows progress follow it."""
    followed: Iterable[T] = work
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        status = isinstance(callback, LiveStatus) and trainer.is_global_zero
        if status or isinstance(callback, RoundProgressBar):
            followed = callback.track(followed, len(work), description)
    yield from followed


def say(trainer: Trainer, phase: str) -> None:
    """Let the labelling page say what the process does just now."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, LiveStatus) and trainer.is_global_zero:
            callback.say(phase, now=True)


class RoundProgressBar(RichProgressBar):
    """Lightning's rich progress bar, whose epochs have the name that they have here.

    Args:
        noun: Name of an epoch.
    """

    def __init__(self, noun: str = "Round") -> None:
        super().__init__()
        self.noun = noun

    @override
    def _get_train_description(self, current_epoch: int) -> str:
        last = (self.trainer.max_epochs or 1) - 1  # below 0: as many as the budget allows
        return f"{self.noun} {current_epoch}" + (f"/{last}" if last >= 0 else "")

    @override
    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        items: dict[str, Any] = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        pool = getattr(getattr(trainer, "datamodule", None), "pool", None)
        if pool is not None:
            items["labels"] = str(pool.labels_bought)
        if "test/acc" in trainer.callback_metrics:
            items["test/acc"] = trainer.callback_metrics["test/acc"].item()
        return items

    def track(self, work: Iterable[T], total: int, description: str) -> Iterator[T]:
        """Yield the work and show how much of it is done."""
        if self.progress is None or self.is_disabled:
            yield from work
            return
        task = self.progress.add_task(description, total=total)
        for item in work:
            yield item
            self.progress.update(task, advance=1)
            self.refresh()
        self.progress.remove_task(task)


class LiveStatus(Callback):
    """Leaves in the run folder what the process does just now, for the labelling page.

    Args:
        run: The folder.
        noun: Name of an epoch.
    """

    def __init__(self, run: RunFolder, noun: str = "Round") -> None:
        self.run = run
        self.noun = noun
        self.last = 0.0

    def say(self, phase: str, done: int = 0, total: int = 0, now: bool = False) -> None:
        """Write it, at most twice a second unless it has to be now."""
        if (now or time.monotonic() - self.last > 0.5) and self.run.path.is_dir():
            self.last = time.monotonic()
            write_json(self.run.status, {"phase": phase, "done": done, "total": total})

    def track(self, work: Iterable[T], total: int, description: str) -> Iterator[T]:
        """Yield the work and write how much of it is done."""
        for done, item in enumerate(work):
            self.say(description, done, total)
            yield item

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            phase = f"{self.noun} {trainer.current_epoch}: training step"
            self.say(phase, batch_idx + 1, int(trainer.num_training_batches))
