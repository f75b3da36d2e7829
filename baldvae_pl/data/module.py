"""The data module: W, the pools over it, and the batches that a round trains and tests on."""

import hashlib
from collections.abc import Callable
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from baldvae_pl.data import sources as datasets
from baldvae_pl import oracle as oracles
from baldvae_pl.data.batches import (
    Batch,
    Gather,
    RoundBatches,
    TestBatches,
    image_loader,
    images_at_once,
    to_unit_interval,
)
from baldvae_pl.data.sources import Images, Source, check_source, choose, repeat
from baldvae_pl.runs.files import replacing
from baldvae_pl.data.image_folder import find_images, read_images
from baldvae_pl.oracle import KnownLabels, Oracle
from baldvae_pl.pool import Pool, one_of_each_in_turn
from baldvae_pl.seeding import Purpose, make_generator
from baldvae_pl.errors import SettingError, refused, resolve, with_options


class PoolDataModule(LightningDataModule):
    """Holds the labelled, unlabelled and generated pools.

    Batches leave the loaders as 8-bit images and reach the modules as floats in [0, 1].

    Args:
        source: The data set: ``digits``, ``MNIST``, ``FashionMNIST``, ``CIFAR10``, ``ImageFolder``
            (``root/train/<class>/*`` and ``root/test/<class>/*``), or the import path of a function
            from a folder to a ``baldvae_pl.datasets.Source``.
        root: Folder of the data sets; what is not found there is downloaded to it.
        image_size: Height and width that the images of an ``ImageFolder`` get, 32 if left out.
        channels: Theirs: 3 for RGB, also if left out, or 1 for grey.
        skip_unreadable: Leave out image files that cannot be decoded, instead of refusing them.
        cache_folder: Where decoded image files are kept, ``~/.cache/baldvae`` if left out.
        subset: W is so many images of the data set, at random, the same for every seed.
        repeats: Each image of W is in it so often, with noise: ``RepeatedMNIST`` for MNIST, see
            `baldvae_pl.datasets.repeat`.
        initial_labels: Size of the first labelled pool, drawn uniformly at random, or ``all``.
        balanced_initial_labels: Draw equally many of each class, as the data set's labels say.
        batch_size: Images of an optimiser step, over all processes.
        steps_per_round: Optimiser steps of a round, the same for every method and round.
        epochs_per_round: At least as many steps as so many passes over L take, which then grow
            with the number of labels alone.
        eval_batch_size: Images at once when testing.
        scoring_batch_size: At most so many images at once when scoring; left out, as many as keep
            memory small, since each batch costs a pass over the weights of every draw.
        oracle: Who labels: a callable from global indices to labels, or its import path; left out,
            the data set's own labels answer.
        seed: Seed of the initial labels and of the batches.
    """

    def __init__(
        self,
        source: str | Callable[[Path], Source] = "digits",
        root: str = "data",
        image_size: PositiveInt | None = None,
        channels: Literal[1, 3] | None = None,
        skip_unreadable: bool | None = None,
        cache_folder: str | None = None,
        subset: PositiveInt | None = None,
        repeats: PositiveInt = 1,
        initial_labels: PositiveInt | Literal["all"] = 20,
        balanced_initial_labels: bool = False,
        batch_size: PositiveInt = 64,
        steps_per_round: PositiveInt = 300,
        epochs_per_round: NonNegativeFloat = 0,
        eval_batch_size: PositiveInt = 128,
        scoring_batch_size: PositiveInt | None = None,
        oracle: str | Oracle | None = None,
        predict_folder: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.load: Callable[[Path], Source] = resolve("--data.source", source, datasets)
        self.root = Path(root).expanduser()
        self.reading: dict[str, Any] = {
            "skip_unreadable": skip_unreadable,
            "cache_folder": cache_folder,
        }
        self.format = {"image_size": image_size, "channels": channels}
        self.predict_folder = predict_folder
        self.subset = subset
        self.repeats = repeats
        self.initial_labels = initial_labels
        self.balanced_initial_labels = balanced_initial_labels
        self.batch_size = batch_size
        self.steps_per_round = steps_per_round
        self.epochs_per_round = epochs_per_round
        self.eval_batch_size = eval_batch_size
        self.scoring_batch_size = scoring_batch_size
        self.oracle: Oracle | None = resolve("--data.oracle", oracle, oracles)
        self.seed = seed
        self.source: Source | None = None
        self.answers_file: Path | None = None
        self.changed = False  # whether a run may go on with other images than it began with

    def prepare_data(self) -> None:
        if self.trainer is None or not self.trainer.predicting:
            self._load_source()  # downloads and decodes in one process

    def setup(self, stage: str) -> None:
        # Predicting needs no pool but the checkpoint's. Otherwise every method of the Trainer
        # calls this again: the pools stay.
        if stage == "predict" or hasattr(self, "pool"):
            return
        source = self._load_source()
        self.train, self.test, self.classes, self.files, _ = source
        # The indices of a checkpoint mean nothing for other images.
        self.fingerprint = fingerprint(source)
        size = len(self.train.labels)
        initial = size if self.initial_labels == "all" else self.initial_labels
        if initial > size:
            raise SettingError(
                f"--data.initial_labels: {initial} is more than the {size} images of "
                f"the data set. Take at most {size}."
            )
        self.answer = self.oracle or KnownLabels(self.train.labels)
        self.pool = Pool(size, tuple(self.train.images.shape[1:]))
        chance = make_generator(self.seed, 0, Purpose.INITIAL_LABELS)
        order = torch.randperm(size, generator=chance)
        if self.balanced_initial_labels:
            order = one_of_each_in_turn(order, self.train.labels)
        self.initial = order[:initial].sort().values

    def _load_source(self) -> Any:
        if self.source is None:
            load = with_options(self.load, "data", **self.format, **self.reading)
            with refused("--data.source"):
                source = load(self.root)
            check_source(source)
            self.source = repeat(choose(source, self.subset), self.repeats)
        return self.source

    def ask(self, indices: Tensor) -> Tensor:
        """Return the oracle's labels of these images; with several processes it is asked once.

        What it answered is kept in ``answers_file``, if that is set, before anything else happens:
        a run that dies and goes on asks for no label twice.

        Raises:
            SettingError: If it answers with something else than a class for each.
        """
        trainer = self.trainer
        asks = trainer is None or trainer.is_global_zero
        labels = self._ask(indices) if asks else torch.empty(0)
        return labels if trainer is None else trainer.strategy.broadcast(labels)

    def _ask(self, indices: Tensor) -> Tensor:
        known = self._answers()
        new = indices[~torch.isin(indices, known["indices"])]
        labels = self.answer(new) if len(new) else new
        if (
            labels.shape != new.shape
            or labels.is_floating_point()
            or (len(new) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes))
        ):
            raise SettingError(
                f"--data.oracle: asked for {len(new)} labels, it answered {labels}. It must "
                f"return as many whole numbers from 0 to {len(self.classes) - 1}."
            )
        known["indices"] = torch.cat([known["indices"], new])
        known["labels"] = torch.cat([known["labels"], labels.cpu()])
        if self.answers_file is not None and len(new):
            with replacing(self.answers_file) as file:
                torch.save({"data": self.fingerprint, **known}, file)
        order = known["indices"].argsort()
        return known["labels"][order[torch.searchsorted(known["indices"][order], indices)]]

    def _answers(self) -> dict[str, Tensor]:
        """Return what the oracle has answered for these images, in this run."""
        none = torch.empty(0, dtype=torch.long)
        if self.answers_file is not None and self.answers_file.is_file():
            saved = torch.load(self.answers_file, weights_only=True)
            if saved["data"] == self.fingerprint:
                return {"indices": saved["indices"], "labels": saved["labels"]}
        return {"indices": none, "labels": none}

    def label_initial(self) -> None:
        """Buy the initial labels, unless a checkpoint has brought a pool that has labels."""
        if len(self.pool.labelled) == 0:
            self.pool.acquire(self.initial, self.ask(self.initial), round=0)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of the current round over L and G."""
        assert self.trainer is not None
        generated = self.pool.generated
        extra = Images(generated["images"], generated["labels"])
        in_generated = torch.arange(len(extra.labels)) + len(self.train.labels)
        labelled = self.pool.labelled
        steps_of_passes = ceil(self.epochs_per_round * len(labelled) / self.batch_size)
        batches = RoundBatches(
            torch.cat([labelled, in_generated]),
            self.batch_size,
            max(self.steps_per_round, steps_of_passes),
            (self.seed, self.trainer.current_epoch, Purpose.BATCHES),
            (self.trainer.global_rank, self.trainer.world_size),
        )
        labels_of_pool = Images(self.train.images, self.pool.labels)
        return image_loader(Gather(labels_of_pool, extra), batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the test set: Lightning's validation loop gives the curve's point of a round."""
        assert self.trainer is not None
        share = (self.trainer.global_rank, self.trainer.world_size)
        batches = TestBatches(len(self.test.labels), self.eval_batch_size, share)
        return image_loader(Gather(self.test), batches)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the images of ``predict_folder``, each with its number in ``predict_files``."""
        assert self.trainer is not None
        setting, folder = "--data.predict_folder", Path(self.predict_folder or "").expanduser()
        images, self.predict_files, _ = read_images(
            folder,
            find_images(folder, setting),
            self.pool.image_shape,
            setting=setting,
            **self.reading,
        )
        numbered = Images(images, torch.arange(len(images)))
        share = (self.trainer.global_rank, self.trainer.world_size)
        size = self.scoring_batch_size or images_at_once(prod(images.shape[1:]))
        return image_loader(Gather(numbered), TestBatches(len(images), size, share))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = batch
        assert self.trainer is not None
        return self.trainer.precision_plugin.convert_input(to_unit_interval(images)), labels

    def state_dict(self) -> dict[str, Any]:
        return {
            "pool": self.pool.state_dict(),
            "seed": self.seed,
            "classes": self.classes,
            "fingerprint": self.fingerprint,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.source is None:  # the checkpoint's own, to predict with
            pool = state_dict["pool"]
            self.pool = Pool(len(pool["labels"]), tuple(pool["generated"]["images"].shape[1:]))
            self.classes, self.seed = state_dict["classes"], state_dict["seed"]
        else:
            self.check(state_dict)
        self.pool.load_state_dict(state_dict["pool"])

    def check(self, state: dict[str, Any]) -> None:
        """Raise a SettingError if the state of a checkpoint belongs to other data or seed."""
        same_size = len(state["pool"]["labels"]) == len(self.train.labels)
        same = state["fingerprint"] == self.fingerprint and state["classes"] == self.classes
        if not (
            same or (self.changed and same_size and len(state["classes"]) == len(self.classes))
        ):
            raise SettingError(
                "--ckpt_path: the checkpoint was made with other images or labels "
                f"({len(state['pool']['labels'])} of {len(state['classes'])} classes) than this "
                f"data set's ({len(self.train.labels)} of {len(self.classes)} classes). Give the "
                "--data.source and --data.root of that run"
                + ", or go on with these by --resume_changed true." * same_size
                + "." * (not same_size)
            )
        if state["seed"] != self.seed:
            raise SettingError(
                f"--seed_everything: {self.seed} is not the seed of the checkpoint. "
                f"Give --seed_everything {state['seed']}."
            )


def fingerprint(source: Source) -> str:
    """Return what tells these images and labels from others."""
    digest = hashlib.sha256((source.fingerprint or "").encode())
    images = [] if source.fingerprint else [source.train.images]
    for part in (*images, source.train.labels, *source.test):
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def data_of(trainer: Trainer) -> PoolDataModule:
    """Return the data module that the trainer runs on."""
    data: PoolDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data
