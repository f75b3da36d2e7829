"""All processes of a run as one: work is shared out, or done once and told to the others.

The only room that knows about devices, precision and ranks. Whatever looks at images between two
trainings gets a `Processes` and never a Trainer.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from baldvae_pl.data.batches import images_at_once, read_ahead, to_floats
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import SettingError
from baldvae_pl.loop.progress import track
from baldvae_pl.oracle import NotYet

T = TypeVar("T")


class Processes:
    """The processes of a run.

    Args:
        trainer: Its strategy reduces and broadcasts, its precision is used.
        pl_module: Tells the device.
    """

    def __init__(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trainer = trainer
        self.device = pl_module.device
        self.batch_size = pool_data(trainer).scoring_batch_size

    def run(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Apply a function of float images to a batch of W's, on the device.

        Images are converted here; Lightning's hook does so for the loaders alone.
        """
        with self.trainer.precision_plugin.forward_context():
            return function(self.floats(images))

    def floats(self, images: Tensor) -> Tensor:
        """Return images of W as networks take them, on the device."""
        floats = to_floats(images.to(self.device))
        converted: Tensor = self.trainer.precision_plugin.convert_input(floats)
        return converted

    @torch.no_grad()
    def map(
        self,
        function: Callable[[Tensor], Tensor],
        images: Tensor,
        description: str,
        statistic: Callable[[Tensor], Tensor] = lambda values: values,
        indices: Tensor | None = None,
    ) -> Tensor:
        """Return a statistic of what a function makes of every image, on every process.

        Whole batches of one grid are dealt to the processes, so that no value depends on their
        number. Memory is bounded by a batch, in addition to the result.

        Args:
            function: Float images (n, …) -> values (n, …), which bound the size of a batch.
            images: As W holds them, shape (N, …).
            description: What the progress bar says.
            statistic: values -> numbers (n, …), row by row.
            indices: Of the images that are meant, shape (N,); left out, all.

        Returns:
            float32, shape (N, …), on the CPU.
        """
        count = len(images) if indices is None else len(indices)
        example = self.run(function, images[:1])
        numbers = max(images[0].numel(), example.numel())
        shape = statistic(example).shape[1:]
        size = even_batches(count, self.batch_size or images_at_once(numbers))
        starts = list(range(0, count, size))
        if dry_run(self.trainer):
            starts = starts[: int(self.trainer.limit_predict_batches)]
        mine = starts[self.trainer.global_rank :: self.trainer.world_size]
        result = torch.zeros(count, *shape, device=self.device)
        parts = [slice(start, start + size) for start in mine]
        which = parts if indices is None else [indices[part] for part in parts]
        shown = track(self.trainer, parts, description)
        for part, batch in zip(shown, read_ahead(images, which), strict=True):
            result[part] = statistic(self.run(function, batch))
        reduced: Tensor = self.trainer.strategy.reduce(result, reduce_op="sum")
        return reduced.cpu()

    @contextmanager
    def off_the_accelerator(self) -> Iterator[None]:
        """Leave the accelerator's memory to others, if this is the only process of the run."""
        module = self.trainer.lightning_module
        if self.device.type == "cpu" or self.trainer.world_size > 1:
            yield
            return
        modules = [module, *getattr(module, "frozen_autoencoder", [])]
        for each in modules:
            each.cpu()
        torch.accelerator.empty_cache()
        try:
            yield
        finally:
            for each in modules:
                each.to(self.device)

    def once(self, function: Callable[[], T]) -> T:
        """Call a function on the first process, and return or raise the same on all.

        The others wait for days if it takes days, as a person's answers may.
        """
        outcome: list[Any] = ["returned", None]
        raised: Exception | None = None
        if self.trainer.is_global_zero:
            try:
                outcome[1] = function()
            except NotYet as error:
                outcome, raised = ["not yet", str(error)], error
            except Exception as error:
                outcome, raised = ["raised", str(error)], error
        how, what = tell(self.trainer, outcome)
        if raised is not None:
            raise raised
        if how == "not yet":
            raise NotYet(what)
        if how == "raised":
            raise SettingError(what)
        result: T = what
        return result


def tell(trainer: Trainer, what: T) -> T:
    """Return on every process what the first one says, however long that takes.

    A broadcast of Lightning's would end the run after the process group's timeout, half an hour,
    and let no signal through while it waits.
    """
    if not dist.is_available() or not dist.is_initialized():
        told: T = trainer.strategy.broadcast(what)
        return told
    patient = patient_group(dist.group.WORLD)
    arrived: Any = dist.broadcast(torch.zeros(1), src=0, group=patient, async_op=True)
    while not arrived.is_completed():
        time.sleep(0.02)
    arrived.wait()  # raises what went wrong
    said = [what]
    dist.broadcast_object_list(said, src=0, group=patient, device=torch.device("cpu"))
    return said[0]


@lru_cache(maxsize=1)
def patient_group(_: Any) -> Any:
    """Make a group of all processes that waits for a year; once for each default group."""
    return dist.new_group(backend="gloo", timeout=timedelta(days=365))


def even_batches(count: int, size: int) -> int:
    """Return a batch size, at most this one, by which 2, 3, 4, 6 or 12 processes have equal shares.

    As far as there are images enough: then the number of batches is a multiple of twelve.
    """
    batches = -(-count // size)
    return size if batches == 1 else -(-count // (-(-batches // 12) * 12))


def pool_data(trainer: Trainer) -> PoolDataModule:
    """Return the data module that the trainer runs on."""
    data: PoolDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data


def dry_run(trainer: Trainer) -> bool:
    """Whether this is a ``fast_dev_run``, which goes through everything and leaves nothing."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
