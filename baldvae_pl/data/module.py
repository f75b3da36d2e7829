"""The data module: W, the pools over it, and the batches that a round trains and tests on."""

from collections.abc import Callable, Iterable
from math import ceil
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from baldvae_pl.data.answers import Answers, Ledger
from baldvae_pl.data.batches import (
    Batch,
    Gather,
    RoundBatches,
    TestBatches,
    image_loader,
    images_at_once,
    to_floats,
)
from baldvae_pl.data.images import Images, Source, check_range, check_source, fingerprint
from baldvae_pl.data.sources import DataSource, Digits
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.oracle import (
    CANNOT_TELL,
    WITHDRAWN,
    Answer,
    KnownLabels,
    LabelFunction,
    NotYet,
    Oracle,
    Question,
)
from baldvae_pl.pool import Pool
from baldvae_pl.seeding import Purpose


class PoolDataModule(LightningDataModule):
    """Holds the labelled, unlabelled and generated pools.

    Lightning's validation set is the test set here: it is only measured. There is no other; who
    wants to stop or tune by one splits it off L.

    Args:
        source: The data set: ``Digits``, ``MNIST``, ``FashionMNIST``, ``CIFAR10``, ``ImageFolder``
            (``root/train/<class>/*`` and ``root/test/<class>/*``), or the import path of a
            ``DataSource`` or of a function from a folder to a ``Source``.
        root: Folder of the data set; what is not found there is downloaded to it.
        initial_labels: Size of the first labelled pool, or ``all``; which images they are is
            ``--acquisition.initial_selection``.
        batch_size: Images of an optimiser step, over all processes.
        steps_per_round: Optimiser steps of a round, the same for every method and round.
        epochs_per_round: At least as many steps as so many passes over L take, which then grow
            with the number of labels alone.
        eval_batch_size: Images at once when testing.
        scoring_batch_size: At most so many images at once when scoring; left out, as many as keep
            memory small, since each batch costs a pass over the weights of every draw.
        oracle: Who labels: an ``Oracle``, or the import path of a function from global indices to
            labels; left out, the data set's own labels answer.
        seed: Seed of the initial labels and of the batches.
    """

    def __init__(
        self,
        source: DataSource | Callable[[Path], Any] = Digits(),
        root: str = "data",
        initial_labels: PositiveInt | Literal["all"] = 20,
        batch_size: PositiveInt = 64,
        steps_per_round: PositiveInt = 300,
        epochs_per_round: NonNegativeFloat = 0,
        eval_batch_size: PositiveInt = 128,
        scoring_batch_size: PositiveInt | None = None,
        oracle: Oracle | Callable[[Tensor], Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.load = source
        self.root = Path(root).expanduser()
        self.initial_labels = initial_labels
        self.batch_size = batch_size
        self.steps_per_round = steps_per_round
        self.epochs_per_round = epochs_per_round
        self.eval_batch_size = eval_batch_size
        self.scoring_batch_size = scoring_batch_size
        self.oracle: Oracle | LabelFunction | None = oracle
        self.seed = seed
        self.source: Source | None = None
        self.ledger: Ledger | None = None
        self.predict_images: Tensor | None = None
        self.allow_changes = False  # whether a run may go on with other images than it began with

    @override
    def prepare_data(self) -> None:
        if self.trainer is None or not self.trainer.predicting:
            self._load_source()

    @override
    def setup(self, stage: str) -> None:
        # Predicting needs no pool but the checkpoint's. Otherwise every method of the Trainer
        # calls this again: the pools stay.
        if stage == "predict" or hasattr(self, "pool"):
            return
        source = self._load_source()
        self.train, self.test, self.classes, self.files, *_ = source
        # The indices of a checkpoint mean nothing for other images.
        self.fingerprint = fingerprint(source)
        size = len(self.train.labels)
        self.initial_size = size if self.initial_labels == "all" else self.initial_labels
        if self.initial_size > size:
            raise SettingError(
                f"--data.initial_labels: {self.initial_size} is more than the {size} images of "
                f"the data set. Take at most {size}."
            )
        self.pool = Pool(size, tuple(self.train.images.shape[1:]), self.train.images.dtype)

    def _load_source(self) -> Source:
        if self.source is None:
            with refused("--data.source"):
                source = self.load(self.root)
            check_source(source)
            check_range(source.train.images, "--data.source")
            self.source = source
        return self.source

    @property
    def pictures(self) -> Tensor | None:
        """8-bit pictures of W for people to look at; None if W is vectors without any."""
        assert self.source is not None
        images, pictures = self.source.train.images, self.source.pictures
        return images if images.dtype == torch.uint8 else pictures

    def open_ledger(self, path: Path | None) -> None:
        """Keep what is asked and answered in this file; None: in memory alone."""
        self.ledger = Ledger(path, self.fingerprint)

    def open_question(self, round: int) -> Tensor | None:
        """Return the question of an earlier start for this round, if it can be asked again.

        Settings that were changed on purpose change the question too. Images that are not in W are
        made anew.
        """
        asked = self.ledger.asked.get(round) if self.ledger is not None else None
        if asked is None or self.allow_changes or min(asked) < 0:
            return None
        indices = torch.tensor(asked)
        return indices if bool(self.pool.in_unlabelled_N[indices].all()) else None

    def ask(self, question: Question) -> Answers:
        """Ask the oracle for the label of each image of a question.

        What is asked, and each answer before the next is awaited, is on the disk: a run that dies
        and goes on asks for no label twice.

        Raises:
            SettingError: If the oracle fails, answers for other images or with anything else than a
                class, or leaves images without an answer.
            NotYet: If it says so.
        """
        if self.ledger is None:
            self.open_ledger(None)
        assert self.ledger is not None
        ledger, indices = self.ledger, question.indices.tolist()
        ledger.ask(question.round, question.indices)
        known = ledger.known(question.round)
        new = torch.tensor([i for i, index in enumerate(indices) if index not in known])
        if len(new):
            left = _part(question, new.long())
            earlier = {answer.image for given in ledger.answers.values() for answer in given}
            with refused("--data.oracle", but=NotYet):
                for answers in self._answers(left):
                    self._check_answers(answers, {*indices, *earlier})
                    ledger.record(question.round, answers)
        known = ledger.known(question.round)
        if missing := [index for index in indices if index not in known]:
            raise SettingError(
                f"--data.oracle: it ended with {len(missing)} of {len(indices)} images without an "
                "answer. An oracle answers all, or raises NotYet to end the run until it can."
            )
        labels = {index: known[index] for index in indices}
        # A run that goes on with other settings may not have bought what another start corrected.
        given = ledger.corrections(question.round).items()
        corrections = {index: label for index, label in given if self.pool.was_bought(index)}
        return Answers(labels, corrections)

    def _answers(self, question: Question) -> Iterable[list[Answer]]:
        """Yield what the oracle answers, as it comes."""
        if isinstance(self.oracle, Oracle):
            for answer in self.oracle.answer(question):
                yield [answer]
            return
        if (question.indices < 0).any():
            raise SettingError(
                "--data.oracle: the selection asks about images that are not in the data set, and "
                "only their indices are known to this oracle. Give an Oracle, which sees them."
            )
        labels = (self.oracle or KnownLabels(self.train.labels))(question.indices)
        if (
            not isinstance(labels, Tensor)
            or labels.shape != question.indices.shape
            or labels.is_floating_point()
        ):
            raise SettingError(
                f"--data.oracle: asked for {len(question.indices)} labels, it answered {labels}. "
                "It must return a tensor of as many whole numbers."
            )
        yield [
            Answer(*pair) for pair in zip(question.indices.tolist(), labels.tolist(), strict=True)
        ]

    def _check_answers(self, answers: list[Answer], bought: set[int]) -> None:
        for answer in answers:
            if not isinstance(answer, Answer) or answer.image not in bought:
                raise SettingError(
                    f"--data.oracle: it answered {answer}, which is no Answer for an image that "
                    "was asked about."
                )
            label = answer.label
            is_class = type(label) is int and 0 <= label < len(self.classes)
            if not is_class and label not in (CANNOT_TELL, WITHDRAWN):
                raise SettingError(
                    f"--data.oracle: it answered {label!r} for image {answer.image}. A label is a "
                    f"whole number from 0 to {len(self.classes) - 1}, CANNOT_TELL or WITHDRAWN."
                )

    @override
    def train_dataloader(self) -> Any:
        """Return the round's batches over L and G, and of U or W if the objective asks for them."""
        assert self.trainer is not None
        generated = self.pool.generated
        extra = Images(generated.images, generated.labels)
        in_generated = torch.arange(len(extra.labels)) + len(self.train.labels)
        labelled, labels = self.pool.labelled, self.pool.labels_bought
        steps = max(self.steps_per_round, ceil(self.epochs_per_round * labels / self.batch_size))
        share = (self.trainer.global_rank, self.trainer.world_size)
        batches = RoundBatches(
            torch.cat([labelled, in_generated]),
            self.batch_size,
            steps,
            (self.seed, self.trainer.current_epoch, Purpose.BATCHES),
            share,
        )
        labels_of_pool = Images(self.train.images, self.pool.labels)
        loader = image_loader(Gather(labels_of_pool, extra), batches)
        objective = getattr(self.trainer.lightning_module, "objective", None)
        which = getattr(objective, "unlabelled", None)
        if objective is None or which is None:
            return loader
        unlabelled = self.pool.unlabelled if which == "U" else torch.arange(len(self.pool.labels))
        others = RoundBatches(
            unlabelled if len(unlabelled) else labelled,  # all are labelled: these are U's rest
            objective.unlabelled_batch_size,
            steps,
            (self.seed, self.trainer.current_epoch, Purpose.UNLABELLED_BATCHES),
            share,
        )
        beside = image_loader(Gather(labels_of_pool), others)
        return CombinedLoader({"labelled": loader, "unlabelled": beside}, "min_size")

    @override
    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the test set: Lightning's validation loop gives the curve's point of a round."""
        assert self.trainer is not None
        share = (self.trainer.global_rank, self.trainer.world_size)
        batches = TestBatches(len(self.test.labels), self.eval_batch_size, share)
        return image_loader(Gather(self.test), batches)

    @override
    def test_dataloader(self) -> DataLoader[Batch]:
        return self.val_dataloader()

    @override
    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the images to predict, each with its position as its label."""
        assert self.trainer is not None
        assert self.predict_images is not None
        images = self.predict_images
        share = (self.trainer.global_rank, self.trainer.world_size)
        size = self.scoring_batch_size or images_at_once(images[0].numel())
        batches = TestBatches(len(images), size, share)
        return image_loader(Gather(Images(images, torch.arange(len(images)))), batches)

    @override
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        # Of the loaders alone; whatever is scored, complemented or looked at goes through
        # `loop.processes`, which converts by itself.
        if isinstance(batch, dict):
            return {key: self.on_after_batch_transfer(part, 0) for key, part in batch.items()}
        images, labels = batch
        assert self.trainer is not None
        return self.trainer.precision_plugin.convert_input(to_floats(images)), labels

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "pool": self.pool.state_dict(),
            "seed": self.seed,
            "classes": self.classes,
            "fingerprint": self.fingerprint,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.source is None:
            self.take_pool(state_dict)
        else:
            self.check(state_dict)
            self.pool.load_state_dict(state_dict["pool"])

    def take_pool(self, state: dict[str, Any]) -> None:
        """Take over pools, classes and seed of a checkpoint, without its images."""
        images = state["pool"]["generated"]["images"]
        self.pool = Pool(len(state["pool"]["labels"]), tuple(images.shape[1:]), images.dtype)
        self.pool.load_state_dict(state["pool"])
        self.classes, self.seed = state["classes"], state["seed"]

    def check(self, state: dict[str, Any]) -> None:
        """Raise a SettingError if the state of a checkpoint belongs to other data or seed."""
        same_size = len(state["pool"]["labels"]) == len(self.train.labels)
        same = state["fingerprint"] == self.fingerprint and state["classes"] == self.classes
        same_count = len(state["classes"]) == len(self.classes)
        if not (same or (self.allow_changes and same_size and same_count)):
            may_differ = same_size and same_count
            way_out = ", or go on with these by --resume_changed true." if may_differ else "."
            raise SettingError(
                "--ckpt_path: the checkpoint was made with other images or labels "
                f"({len(state['pool']['labels'])} of {len(state['classes'])} classes) than this "
                f"data set's ({len(self.train.labels)} of {len(self.classes)} classes). Give the "
                f"--data.source and --data.root of that run{way_out}"
            )
        if state["seed"] != self.seed:
            raise SettingError(
                f"--seed_everything: {self.seed} is not the seed of the checkpoint. "
                f"Give --seed_everything {state['seed']}."
            )


def _part(question: Question, which: Tensor) -> Question:
    """Return the same question about some of its images."""
    files = question.files
    return question._replace(
        indices=question.indices[which],
        images=question.images[which],
        files=files and [files[i] for i in which.tolist()],
        scores=None if question.scores is None else question.scores[which],
        probs_K_C=None if question.probs_K_C is None else question.probs_K_C[which],
    )
