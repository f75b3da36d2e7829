"""The LightningModule of the VAE, and its training before round 0."""

from collections.abc import Callable
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from typing_extensions import override

from baldvae_pl.data.batches import Batch, Gather, RoundBatches, image_loader, to_floats
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.elbo import Likelihood, negative_elbo
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.modules.metrics import check_weights, diverged
from baldvae_pl.networks import DenseVAE
from baldvae_pl.networks.making import adapted
from baldvae_pl.seeding import Purpose, derive_seed


class VAE(LightningModule):
    """The variational autoencoder that makes complements (Kingma and Welling 2014).

    Its loss in nats is the reconstruction's negative log-likelihood summed over pixels plus the KL
    divergence, averaged over images.

    Args:
        network: Makes a fresh network with ``encode(images) -> (mean, log_var)`` and
            ``decode(z) -> images`` in [0, 1]. One that has ``losses(images)``, scalars by name, as
            ``DCGAN`` does, is trained for their sum instead; it needs a ``latent``, the dimensions
            of z, if it encodes nothing.
        epochs: Passes over W before round 0.
        batch_size: Images of an optimiser step, over all processes.
        likelihood: ``bernoulli``: binary cross-entropy, as in PyTorch's official example.
            ``gaussian``: of one variance for all pixels, each batch's best (Rybkin et al. 2021,
            σ-VAE), which reconstructs photographs more sharply, and is what vectors need.
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
        likelihood: Likelihood = "bernoulli",
        optimizer: OptimizerCallable = torch.optim.Adam,
        ckpt_path: str | None = None,
        shared_path: str | None = None,
    ) -> None:
        super().__init__()
        self.make_network: Callable[[], nn.Module] = network
        with refused("--vae.network"):
            self.network: Any = network()
        self.epochs = epochs
        self.batch_size = batch_size
        self.likelihood: Likelihood = likelihood
        self.optimizer = optimizer
        self.ckpt_path = ckpt_path
        self.shared_path = shared_path

    def adapt(self, image_shape: tuple[int, ...], num_classes: int) -> None:
        """Let what the network leaves open follow from the data; see `Classifier.adapt`."""
        with refused("--vae.network"):
            self.network, self.make_network = adapted(
                self.network, self.make_network, image_shape, num_classes
            )

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = to_floats(batch[0])
        if hasattr(self.network, "losses"):
            parts = self.network.losses(images)
        else:
            both = negative_elbo(self.network, images, self.likelihood)
            parts = dict(zip(("reconstruction", "divergence"), both, strict=True))
        # Not logged here: at every step that would take a fifth of the time.
        self.of_an_epoch.append({name: part.detach() for name, part in parts.items()})
        return torch.stack(list(parts.values())).sum()

    @override
    def on_train_epoch_start(self) -> None:
        self.of_an_epoch: list[dict[str, Tensor]] = []

    @override
    def on_train_epoch_end(self) -> None:
        names = self.of_an_epoch[0]
        means = {k: torch.stack([s[k] for s in self.of_an_epoch]).mean() for k in names}
        shown = {f"vae/{name}": mean for name, mean in means.items()}
        self.log_dict(shown, prog_bar=True, sync_dist=True)
        self.log("step", float(self.current_epoch))  # the x axis

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())


def train_vae(vae: VAE, data: PoolDataModule, trainer: Trainer) -> None:
    """Train the VAE from scratch on all of W, without labels, and freeze it.

    Args:
        vae: Trained in place; its weights depend on the seed of ``data`` alone.
        data: Holds W.
        trainer: Of its own, in float32, since it ends with the VAE: its ``max_epochs`` are the
            VAE's.
    """
    if vae.likelihood == "bernoulli" and len(data.pool.image_shape) == 1:
        raise SettingError(
            "--vae.likelihood: bernoulli is for pixels from 0 to 1, and W is vectors. Give "
            "gaussian."
        )
    vae.adapt(data.pool.image_shape, len(data.classes))
    torch.manual_seed(derive_seed(data.seed, 0, Purpose.VAE_WEIGHTS))
    vae.network.load_state_dict(vae.make_network().state_dict())
    torch.manual_seed(derive_seed(data.seed, trainer.global_rank, Purpose.VAE_NOISE))
    images = data.pool.trainable
    batches = RoundBatches(
        images,
        vae.batch_size,
        -(-len(images) // vae.batch_size),
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
