"""The progress bar: rounds, labels, accuracy, and the work between rounds."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from typing_extensions import override

T = TypeVar("T")


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
        return f"{self.noun} {current_epoch}/{(self.trainer.max_epochs or 1) - 1}"

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

    def track(self, work: Sequence[T], description: str) -> Iterator[T]:
        """Yield the work and show how much of it is done."""
        if self.progress is None or self.is_disabled:
            yield from work
            return
        task = self.progress.add_task(description, total=len(work))
        for item in work:
            yield item
            self.progress.update(task, advance=1)
            self.refresh()
        self.progress.remove_task(task)
