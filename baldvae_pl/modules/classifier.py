"""LightningModules: the classifier M and the VAE."""

from collections.abc import Callable
from math import e, pi
from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.special import entr
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from baldvae_pl.acquisition import bald
from baldvae_pl.data.batches import Batch, Gather, RoundBatches, image_loader, to_unit_interval
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import SettingError, refused, resolve
from baldvae_pl.loop.trial import check_weights, diverged
from baldvae_pl.networks import DenseVAE, DigitsNet
from baldvae_pl.networks import augmentation as augmentations
from baldvae_pl.posterior import Draws
from baldvae_pl.runs.checkpoints import UNREADABLE, load_checkpoint
from baldvae_pl.seeding import Purpose, derive_seed


class Classifier(LightningModule):
    """The task model M.

    Args:
        network: Makes a fresh network that maps images in [0, 1] to logits. It needs active
            dropout; with a ``trunk`` and a ``head`` it is scored fastest.
        optimizer: Makes the optimizer from the parameters.
        augmentation: What the images of a training step go through: ``crop``, ``crop_and_flip``,
            or the import path of a function from images to images; left out, nothing.
    """

    draws: Draws
    """The posterior that `predict_step` asks; `ActiveLearning` sets it."""

    def __init__(
        self,
        network: Callable[[], nn.Module] = DigitsNet,
        optimizer: OptimizerCallable = torch.optim.Adam,
        augmentation: str | Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.make_network = network
        # Channels last makes the convolutions of a CPU up to twice as fast.
        with refused("--model.network"):
            self.network = network().to(memory_format=torch.channels_last)
        self.optimizer = optimizer
        self.augment: Callable[[Tensor], Tensor] | None = resolve(
            "--model.augmentation", augmentation, augmentations
        )

    def reset_parameters(self) -> None:
        """Take over the weights of a fresh network: each round starts anew."""
        self.network.load_state_dict(self.make_network().state_dict())

    def setup(self, stage: str) -> None:
        if stage == "predict":
            return
        num_classes = len(self.trainer.datamodule.classes)  # type: ignore[attr-defined]
        self.metrics = probability_metrics(num_classes)
        self.nll = MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        if self.augment is not None:
            images = self.augment(images)
        loss = F.cross_entropy(self(images), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels = batch
        log_probs = self(images).float().log_softmax(-1)
        self.metrics.update(log_probs.exp(), labels)
        self.nll.update(F.nll_loss(log_probs, labels), len(labels))

    def on_validation_epoch_end(self) -> None:
        # While fitting, the callback writes them to the logger against the number of labels.
        scores = {**self.metrics.compute(), "test/nll": self.nll.compute()}
        self.log_dict(scores, logger=self.trainer.state.fn != "fit")
        self.metrics.reset()
        self.nll.reset()

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return a row an image: predicted class, its probability, entropy and BALD in nats.

        The prediction is the average over the posterior's draws.
        """
        log_probs_N_T_C = self.draws(batch[0])
        mean_N_C = log_probs_N_T_C.exp().mean(1)
        probability_N, class_N = mean_N_C.max(1)
        columns = [class_N, probability_N, entr(mean_N_C).sum(-1), bald(log_probs_N_T_C)]
        return torch.stack(columns, 1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())


def probability_metrics(num_classes: int) -> MetricCollection:
    """Return accuracy and expected calibration error (15 bins, L1) of class probabilities."""
    return MetricCollection(
        {
            "acc": MulticlassAccuracy(num_classes, average="micro"),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15),
        },
        prefix="test/",
    )


class VAE(LightningModule):
    """The variational autoencoder that makes complements (Kingma and Welling 2014).

    Its loss in nats is the reconstruction's negative log-likelihood summed over pixels plus the KL
    divergence, averaged over images.

    Args:
        network: Makes a fresh network with ``encode(images) -> (mean, log_var)`` and
            ``decode(z) -> images`` in [0, 1].
        epochs: Passes over W before round 0.
        batch_size: Images of an optimiser step, over all processes.
        likelihood: ``bernoulli``: binary cross-entropy, as in PyTorch's official example.
            ``gaussian``: of one variance for all pixels, each batch's best (Rybkin et al. 2021,
            σ-VAE), which reconstructs photographs more sharply.
        optimizer: Makes the optimizer from the parameters.
        ckpt_path: Take the weights from here instead of training: a checkpoint of a run that used
            the same VAE, or its ``vae.ckpt``.
        shared_path: Train it once for several runs: the first one leaves the weights in this file,
            the others take them from there. The runs must differ in nothing that the VAE sees.
    """

    def __init__(
        self,
        network: Callable[[], nn.Module] = DenseVAE,
        epochs: PositiveInt = 10,
        batch_size: PositiveInt = 128,
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
        optimizer: OptimizerCallable = torch.optim.Adam,
        ckpt_path: str | None = None,
        shared_path: str | None = None,
    ) -> None:
        super().__init__()
        self.make_network = network
        with refused("--vae.network"):
            self.network = network()
        self.epochs = epochs
        self.batch_size = batch_size
        self.likelihood = likelihood
        self.optimizer = optimizer
        self.ckpt_path = ckpt_path
        self.shared_path = shared_path

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = to_unit_interval(batch[0])
        mean, log_var = self.network.encode(images)  # type: ignore[operator]
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        decoded = self.network.decode(z)  # type: ignore[operator]
        if self.likelihood == "bernoulli":
            of_a_pixel = F.binary_cross_entropy(decoded, images)
        else:
            of_a_pixel = 0.5 * (2 * pi * e * F.mse_loss(decoded, images)).log()
        reconstruction = of_a_pixel * images[0].numel()
        divergence = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1).mean()
        loss: Tensor = reconstruction + divergence
        # Not logged here: at every step that would take a fifth of the time.
        self.of_an_epoch.append(torch.stack([reconstruction, divergence]).detach())
        return loss

    def on_train_epoch_start(self) -> None:
        self.of_an_epoch: list[Tensor] = []

    def on_train_epoch_end(self) -> None:
        reconstruction, divergence = torch.stack(self.of_an_epoch).mean(0)
        parts = {"vae/reconstruction": reconstruction, "vae/divergence": divergence}
        self.log_dict(parts, prog_bar=True, sync_dist=True)
        self.log("step", float(self.current_epoch))  # the x axis

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())

    def load(self, path: str) -> None:
        """Take over the weights of a run's checkpoint or of a ``vae.ckpt``.

        Raises:
            SettingError: If there are none, or they are of another network.
        """
        try:
            checkpoint = load_checkpoint(Path(path))
            run = checkpoint.get("callbacks", {}).get("ActiveLearning")
            if run is None:
                self.load_state_dict(checkpoint["state_dict"])
            else:
                self.network.load_state_dict(run["vae"])
        except UNREADABLE as error:
            raise SettingError(
                f"--vae.ckpt_path: {path!r} holds no weights for this --vae.network. Give the "
                "vae.ckpt or last.ckpt of a run with the same VAE, or leave it out to train one."
            ) from error


def train_vae(vae: VAE, data: PoolDataModule, trainer: Trainer) -> None:
    """Train the VAE from scratch on all of W, without labels, and freeze it.

    Args:
        vae: Trained in place; its weights depend on the seed of ``data`` alone.
        data: Holds W.
        trainer: Of its own, in float32, since it ends with the VAE: its ``max_epochs`` are the
            VAE's.
    """
    torch.manual_seed(derive_seed(data.seed, 0, Purpose.VAE_WEIGHTS))
    vae.network.load_state_dict(vae.make_network().state_dict())
    torch.manual_seed(derive_seed(data.seed, trainer.global_rank, Purpose.VAE_NOISE))
    size = len(data.train.labels)
    batches = RoundBatches(
        torch.arange(size),
        vae.batch_size,
        -(-size // vae.batch_size),
        (data.seed, 0, Purpose.VAE_BATCHES),
        (trainer.global_rank, trainer.world_size),
    )
    try:
        trainer.fit(vae, image_loader(Gather(data.train), batches))
    except RuntimeError as error:
        if "should be between 0 and 1" in str(error):  # a CPU's cross-entropy refuses NaN
            raise diverged("in its training", "--vae.optimizer") from error
        raise
    check_weights(vae, "in its training", "--vae.optimizer")
    vae.requires_grad_(False).eval()
