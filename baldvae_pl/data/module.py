"""The data module: W, the pools over it, and the batches that a round trains and tests on."""

from collections.abc import Callable, Iterable
from math import ceil, inf
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import override

from baldvae_pl.data.answers import Answers, Ledger, check_answers
from baldvae_pl.data.asking import AskedPeople
from baldvae_pl.data.batches import (
    Batch,
    Gather,
    RoundBatches,
    TestBatches,
    image_loader,
    images_at_once,
    to_floats,
)
from baldvae_pl.data.embedding import Embedding
from baldvae_pl.data.feature_cache import Embedder, check_network
from baldvae_pl.data.images import Images, Source, check_range, check_source, fingerprint
from baldvae_pl.data.people import UNKNOWN, PeoplesLabels
from baldvae_pl.data.sources import DataSource, Digits
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.oracle import (
    Answer,
    KnownLabels,
    LabelFunction,
    NotYet,
    Oracle,
    People,
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
        embedding: A frozen network that turns pictures into vectors, which then are W: ``Timm`` or
            ``Torchvision``, or the import path of what returns an ``nn.Module`` from images in
            [0, 1] to vectors. They are made once, and kept beside decoded images.
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
        labels: The file of people's answers; left out, ``labels.csv`` beside the images. Only for a
            source whose labels are not known, ``UnlabelledFolder``.
        audit: So many images, drawn at random, are asked about first, are never trained on, and
            are what the accuracy is measured with where there are no test images.
        budget: Answers that may be asked for in all, those of the audit and of earlier runs
            included; left out, the rounds alone say.
        cannot_tell_cost: What the answer "cannot tell" costs of the budget, in labels.
        seed: Seed of the initial labels and of the batches.
    """

    def __init__(
        self,
        source: DataSource | Callable[[Path], Any] = Digits(),
        root: str = "data",
        # Any: of functions without a type hint; nn.Module: so that classes have options.
        embedding: Embedding | Callable[[], nn.Module] | Callable[[], Any] | None = None,
        initial_labels: PositiveInt | Literal["all"] = 20,
        batch_size: PositiveInt = 64,
        steps_per_round: PositiveInt = 300,
        epochs_per_round: NonNegativeFloat = 0,
        eval_batch_size: PositiveInt = 128,
        scoring_batch_size: PositiveInt | None = None,
        oracle: Oracle | Callable[[Tensor], Any] | None = None,
        labels: str | None = None,
        audit: NonNegativeInt = 0,
        budget: PositiveInt | None = None,
        cannot_tell_cost: NonNegativeFloat = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.load = source
        self.root = Path(root).expanduser()
        self.embedding: Callable[[], nn.Module] | None = embedding
        self.initial_labels = initial_labels
        self.batch_size = batch_size
        self.steps_per_round = steps_per_round
        self.epochs_per_round = epochs_per_round
        self.eval_batch_size = eval_batch_size
        self.scoring_batch_size = scoring_batch_size
        self.oracle: Oracle | LabelFunction | None = oracle
        self.labels = labels
        self.audit = audit
        self.budget = budget
        self.cannot_tell_cost = cannot_tell_cost
        self.seed = seed
        self.source: Source | None = None
        self.people: AskedPeople | None = None  # if they label W
        self.ledger: Ledger | None = None
        self.predict_images: Tensor | None = None
        self.embedded: dict[str, Any] | None = None  # by which network, and pictures of which shape
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
        self.train, self.tested, self.classes, self.files, *_ = source
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
        if source.labels_file is not None:
            path = Path(self.labels).expanduser() if self.labels else source.labels_file
            labels = PeoplesLabels(path, source, self.cannot_tell_cost)
            self.oracle = self.oracle or People()
            self.people = AskedPeople(labels, self.pool, self.oracle, self.root, self.budget)
            # Until there are two, the network is tried with as many.
            self.classes = [*self.people.classes, "", ""][: max(2, len(self.people.classes))]
        if isinstance(self.oracle, Oracle) and self.oracle.simulates and self.people is None:
            self.oracle.source = self.source
        self._check_options()

    def _check_options(self) -> None:
        """Raise a SettingError for options that do not fit the source, or each other."""
        if self.people is None:
            for name, value in (("labels", self.labels), ("audit", self.audit)):
                if value:
                    raise SettingError(
                        f"--data.{name}: {value} is for images that people label; this data set "
                        "brings its labels and its test images. Leave it out, or take --data.source"
                        " UnlabelledFolder."
                    )
        elif self.audit and len(self.tested.labels):
            raise SettingError(
                f"--data.audit: {self.audit} cannot be taken, as there are "
                f"{len(self.tested.labels)} images in {self.root}/test. Leave it out."
            )
        first = self.initial_size + self.audit
        if self.budget is not None and self.budget < first:
            raise SettingError(
                f"--data.budget: {self.budget} answers are fewer than the first ones, "
                f"{self.initial_size} to train with and {self.audit} for the audit. Give more, or "
                "fewer --data.initial_labels or --data.audit."
            )

    @property
    def test(self) -> Images:
        """Never enters a pool: the source's test images, or the audit as far as it is answered."""
        return self._test_of(self.classes)

    def _test_of(self, classes: list[str]) -> Images:
        """Return the test images of these classes; others may have been made since."""
        if self.people is None or len(self.tested.labels):
            return self.tested
        audit = self.pool.in_audit(answered=True)
        audit = audit[self.pool.labels[audit] < len(classes)]
        return Images(self.train.images[audit], self.pool.labels[audit])

    @property
    def all_classes(self) -> list[str]:
        """The classes that the next round learns: people may have made some."""
        return self.classes if self.people is None else self.people.classes

    @property
    def budget_left(self) -> float:
        """How many more answers may be asked for."""
        if self.budget is None:
            return inf
        if self.people is not None:
            return float(self.budget - self.people.spent)
        nobody = int((self.pool.answers_N < UNKNOWN).sum()) + self.pool.synthesised_unknown
        spent = self.pool.labels_bought + nobody * float(self.cannot_tell_cost)
        return float(self.budget - spent)

    def _load_source(self) -> Source:
        if self.source is None:
            with refused("--data.source"):
                source = self.load(self.root)
            check_source(source)
            check_range(source.train.images, "--data.source")
            if self.embedding is not None:
                embedder = self.embedder(getattr(self.load, "cache_folder", None))
                shape = [*source.train.images.shape[1:]]
                source = embedder.source(source)
                self.embedded = {"network": embedder.key, "picture_shape": shape}
            self.source = source
        return self.source

    def embedder(self, cache_folder: str | None) -> Embedder:
        """Return the frozen network that makes W's vectors, where the trainer runs.

        Args:
            cache_folder: Where vectors are kept; None: in ``~/.cache/baldvae``.
        """
        assert self.embedding is not None
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return Embedder(self.embedding, device, cache_folder)

    @property
    def pictures(self) -> Tensor | None:
        """8-bit pictures of W for people to look at; None if W is vectors without any."""
        assert self.source is not None
        images, pictures = self.source.train.images, self.source.pictures
        return images if images.dtype == torch.uint8 else pictures

    def open_ledger(self, path: Path | None) -> None:
        """Keep what is asked and answered in this file; None: in memory alone."""
        self.ledger = Ledger(path, self.fingerprint)

    def draw_audit(self) -> None:
        """Where people label, choose what the audit of a new run lacks, and take it out of U."""
        if self.people is not None and not self.pool.labels_bought:
            dry = self.trainer is not None and self.trainer.fast_dev_run  # type: ignore[attr-defined]
            note = not dry and (self.trainer is None or self.trainer.is_global_zero)
            self.people.draw_audit(self.audit, self.initial_size, self.seed, note)

    def open_question(self, round: int) -> Tensor | None:
        """Return the question of an earlier start for this round, if it can be asked again.

        Settings that were changed on purpose change the question too. Images that are not in W are
        made anew.
        """
        if self.people is not None:
            return None if self.allow_changes else self.people.open_question(round)
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
        if self.people is not None:
            return self.people.ask(question, self.classes)
        if self.ledger is None:
            self.open_ledger(None)
        assert self.ledger is not None
        ledger, indices = self.ledger, question.indices.tolist()
        ledger.ask(question.round, question.indices)
        known = ledger.known(question.round)
        new = torch.tensor([i for i, index in enumerate(indices) if index not in known])
        if len(new):
            left = question.of(new.long())
            earlier = {answer.image for given in ledger.answers.values() for answer in given}
            with refused("--data.oracle", but=NotYet):
                for answers in self._answers(left):
                    check_answers(answers, {*indices, *earlier}, self.classes)
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
        bought = Images(self.train.images, self.pool.labels)
        loader = image_loader(Gather(bought, extra), batches)
        objective = getattr(self.trainer.lightning_module, "objective", None)
        which = getattr(objective, "unlabelled", None)
        if objective is None or which is None:
            return loader
        unlabelled = self.pool.unlabelled if which == "U" else self.pool.trainable
        others = RoundBatches(
            unlabelled if len(unlabelled) else labelled,  # all are labelled: these are U's rest
            objective.unlabelled_batch_size,
            steps,
            (self.seed, self.trainer.current_epoch, Purpose.UNLABELLED_BATCHES),
            share,
        )
        indexed = Images(self.train.images, torch.arange(len(self.train.labels)))
        beside = image_loader(Gather(indexed), others)
        return CombinedLoader({"labelled": loader, "unlabelled": beside}, "min_size")

    @override
    def val_dataloader(self) -> Any:
        """Return the test set: Lightning's validation loop gives the curve's point of a round.

        No loader if people label, and have not answered any of the audit.
        """
        assert self.trainer is not None
        share = (self.trainer.global_rank, self.trainer.world_size)
        # A round asks for these before it learns the classes that have been made.
        fits = self.people is not None and self.trainer.state.fn == "fit"
        test = self._test_of(self.all_classes if fits else self.classes)
        if len(test.labels) == 0:
            return []
        batches = TestBatches(len(test.labels), self.eval_batch_size, share)
        return image_loader(Gather(test), batches)

    @override
    def test_dataloader(self) -> Any:
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
            "embedded": self.embedded,
        } | (self.people.state_dict() if self.people else {})

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.source is None:
            self.take_pool(state_dict)
            return
        self.check(state_dict)
        self.pool.load_state_dict(state_dict["pool"])
        if self.people is not None:
            self.people.load_state_dict(state_dict)

    def take_pool(self, state: dict[str, Any]) -> None:
        """Take over pools, classes and seed of a checkpoint, without its images."""
        images = state["pool"]["generated"]["images"]
        self.pool = Pool(len(state["pool"]["labels"]), tuple(images.shape[1:]), images.dtype)
        self.pool.load_state_dict(state["pool"])
        self.classes, self.seed = state["classes"], state["seed"]
        self.embedded = state.get("embedded")

    def check(self, state: dict[str, Any]) -> None:
        """Raise a SettingError if the state of a checkpoint belongs to other data or seed."""
        if state["seed"] != self.seed:
            raise SettingError(
                f"--seed_everything: {self.seed} is not the seed of the checkpoint. "
                f"Give --seed_everything {state['seed']}."
            )
        if not self.allow_changes:
            check_network(
                state.get("embedded"), self.embedded["network"] if self.embedded else None
            )
        if self.people is not None:
            self.people.check(state)
            self.classes = state["classes"]
            return
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
