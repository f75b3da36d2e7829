"""The LightningModule of the classifier M."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from typing_extensions import override

from baldvae_pl.complement import Autoencoder
from baldvae_pl.data.batches import Batch
from baldvae_pl.errors import refused
from baldvae_pl.modules import schedules
from baldvae_pl.modules.metrics import probability_metrics
from baldvae_pl.networks import DigitsNet
from baldvae_pl.networks import augmentation as augmentations
from baldvae_pl.networks.making import adapted, first_made
from baldvae_pl.objective import CrossEntropy, Objective, ObjectiveFunction, Step
from baldvae_pl.options import resolve
from baldvae_pl.posterior import Draws


class Classifier(LightningModule):
    """The task model M.

    Args:
        network: Makes a fresh network that maps images in [0, 1] to logits. For BALD it needs
            active dropout; with a ``trunk`` and a ``head`` it is scored fastest. One that also has
            ``encode`` and ``decode`` makes the complements itself.
        optimizer: Makes the optimizer from the parameters.
        objective: The loss of a training step: an ``Objective``, or the import path of a function
            from a ``baldvae_pl.objective.Step`` to a scalar.
        schedule: Learning rate within a round: ``one_cycle``, which rises for a quarter of the
            steps and falls to nothing along a cosine, or the import path of a function from the
            share of the round that is done to a factor; left out, it is constant.
        augmentation: What the images of a training step go through: ``crop``, ``crop_and_flip``,
            or the import path of a function from images to images; left out, nothing.
    """

    draws: Draws
    """The posterior that `predict_step` asks; `ActiveLearning` sets it."""

    def __init__(
        self,
        network: Callable[[], nn.Module] = DigitsNet,
        optimizer: OptimizerCallable = torch.optim.Adam,
        objective: Objective | Callable[[Step], Any] = CrossEntropy(),
        augmentation: str | Callable[[Tensor], Tensor] | None = None,
        schedule: str | Callable[[float], float] | None = None,
    ) -> None:
        super().__init__()
        self.given_network: Callable[[], nn.Module] = network  # may leave open what data say
        self.make_network: Callable[[], nn.Module] = network
        # Channels last makes the convolutions of a CPU up to twice as fast.
        with refused("--model.network"):
            self.network = first_made(network).to(memory_format=torch.channels_last)
        self.optimizer = optimizer
        self.objective: Objective | ObjectiveFunction = objective
        self.augment: Callable[[Tensor], Tensor] | None = resolve(
            "--model.augmentation", augmentation, augmentations
        )
        self.schedule: Callable[[float], float] | None = resolve(
            "--model.schedule", schedule, schedules
        )
        self.frozen_autoencoder: list[Autoencoder] = []  # in a list, so that it is no submodule
        self.done = 0.0  # share of the round's steps
        self.is_logged = False  # whether the loggers keep this step's loss, or it is the last

    @property
    def autoencoder(self) -> Autoencoder | None:
        """The network itself, if it encodes and decodes."""
        return self.network if isinstance(self.network, Autoencoder) else None

    def adapt(self, image_shape: tuple[int, ...], num_classes: int) -> None:
        """Let what the network leaves open follow from the data, which may gain classes.

        Args:
            image_shape: (channels, height, width), or (features,) of vectors.
            num_classes: Number of classes.
        """
        objective, beside = self.objective, None
        if isinstance(objective, Objective) and type(objective).beside is not Objective.beside:
            beside = objective.beside
        with refused("--model.network"):
            network, self.make_network = adapted(
                self.network, self.given_network, image_shape, num_classes, beside
            )
        if hasattr(self, "metrics"):
            self.metrics = probability_metrics(num_classes).to(self.device)
        self.network = network.to(memory_format=torch.channels_last)

    def reset_parameters(self) -> None:
        """Take over the weights of a fresh network: each round starts anew."""
        self.network.load_state_dict(self.make_network().state_dict())

    @override
    def setup(self, stage: str) -> None:
        if stage == "predict":
            return
        num_classes = len(self.trainer.datamodule.classes)  # type: ignore[attr-defined]
        self.metrics = probability_metrics(num_classes)
        self.nll = MeanMetric()

    @override
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        labelled, (unlabelled, indices) = batch, (None, None)
        if isinstance(batch, dict):
            labelled, (unlabelled, indices) = batch["labelled"], batch["unlabelled"]
        images, labels = labelled
        if self.augment is not None:
            images = self.augment(images)
        frozen = self.frozen_autoencoder[0] if self.frozen_autoencoder else None
        autoencoder = self.autoencoder or frozen
        step = Step(self.network, images, labels, unlabelled, autoencoder, indices, self.done)
        loss = self.objective(step)
        # A call takes as long as a small layer, and the progress bar waits for the device.
        if self.is_logged:
            measures = self.objective.measures if isinstance(self.objective, Objective) else {}
            self.log_dict({f"train/{name}": value for name, value in measures.items()})
            self.log("train/loss", loss, prog_bar=True)
        return loss

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        trainer: Any = self.trainer
        every, steps = trainer.log_every_n_steps, trainer.num_training_batches
        self.done = batch_idx / steps
        kept = every > 0 and (self.global_step + 1) % every == 0  # as Lightning decides
        self.is_logged = kept or batch_idx + 1 == steps
        if self.schedule is None:
            return
        factor = self.schedule(self.done)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = factor * group.setdefault("initial_lr", group["lr"])

    @override
    def on_train_epoch_end(self) -> None:
        for group in self.trainer.optimizers[0].param_groups:  # a run may go on without a schedule
            group["lr"] = group.get("initial_lr", group["lr"])

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels = batch
        log_probs = self(images).float().log_softmax(-1)
        self.metrics.update(log_probs.exp(), labels)
        self.nll.update(F.nll_loss(log_probs, labels), len(labels))

    @override
    def on_validation_epoch_end(self) -> None:
        # While fitting, the callback writes them to the logger against the number of labels.
        scores = {**self.metrics.compute(), "test/nll": self.nll.compute()}
        self.log_dict(scores, logger=self.trainer.state.fn != "fit")
        self.metrics.reset()
        self.nll.reset()

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    @override
    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return log_probs_N_T_C under the posterior's draws."""
        return self.draws(batch[0])

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        added = [*getattr(self.network, "beside", nn.ModuleDict()).parameters()]
        if not isinstance(self.objective, Objective) or self.objective.lr is None or not added:
            return self.optimizer(self.parameters())
        of_beside = {*map(id, added)}
        own = [weight for weight in self.parameters() if id(weight) not in of_beside]
        groups: Any = [{"params": own}, {"params": added, "lr": self.objective.lr}]
        return self.optimizer(groups)
