"""VAE-ACGAN, also BGADL (Tran et al. 2019, "Bayesian generative active deep learning").

An encoder E, a generator G, a discriminator D and the classifier C are trained together in each
round. With z from N(0, 1) and z_q from q(z|x) = E(x), each step minimises

    E: MSE(G(z_q, y), x) + KL(q(z|x) || N(0, 1))
    G: -log D(G(z, y)) - log C(G(z, y))[y] + 0.75 MSE(G(z_q, y), x)
    D: -log D(x) - log (1 - D(G(z, y))) - log (1 - D(G(z_q, y)))
    C: -log C(x)[y] - log C(G(z, y))[y] - log C(G(z_q, y))[y]

so that each part is moved by its own line alone. Images of G are drawn anew at each step, and as in
the paper each newly labelled image also gets a complement x' = G(z_q, y) that stays
(`Regenerated`). From then on it is one of the images x, for D as well: the authors' code stores
none.

Other than in the source all four take their step at once, by the round's optimizer (there: one
after the other, Adadelta), E, G and D with a learning rate of their own; networks are those of
DCGAN, of three convolutions; and E, G and D may learn from all of W, where the classifier says
which class an image is. Weights are as in the code of the authors, means over pixels and over
dimensions of z included.
"""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.complement import copy, in_precision_of, newly_labelled
from baldvae_pl.networks import ConvVAE
from baldvae_pl.networks.generators import held
from baldvae_pl.objective import Objective, Step
from baldvae_pl.policies import DECODED_AT_ONCE, Informed, latents
from baldvae_pl.posterior import eval_mode
from baldvae_pl.rivals.adversarial import (
    LATENT,
    LEARNING_RATE,
    classes_of,
    for_classifier,
    for_discriminator,
    for_generator,
    gan,
    images_of,
    made,
)
from baldvae_pl.selection import Candidates

RECONSTRUCTION = 0.75
"""Weight of the generator's reconstruction, as in the source."""


class VAEACGAN(Objective):
    """Cross-entropy on L, on as many new images of its classes, and on copies, made beside it.

    Args:
        generator_learns_from: ``L``, as in the source, or all of ``W``.
        unlabelled_batch_size: Images of W a step, over all processes, if it learns from them.
    """

    lr = LEARNING_RATE
    moves_images = True  # generated ones are not like those that are tested

    def __init__(
        self, generator_learns_from: Literal["L", "W"] = "L", unlabelled_batch_size: int = 64
    ) -> None:
        self.unlabelled: Literal["U", "W"] | None = "W" if generator_learns_from == "W" else None
        self.unlabelled_batch_size = unlabelled_batch_size

    def beside(
        self,
        network: nn.Module,  # noqa: ARG002
        image_shape: tuple[int, ...],
        num_classes: int,
    ) -> dict[str, nn.Module]:
        """Return an encoder, a generator and a discriminator."""
        shape = images_of(image_shape, "VAEACGAN")
        encoder = ConvVAE(shape, latent=LATENT)
        encoder.decoder = nn.Identity()  # the generator takes its place
        return gan(shape, num_classes) | {"encoder": encoder}

    def __call__(self, step: Step) -> Tensor:
        """Return the sum of all losses in nats, but for reconstructions, which are squares."""
        network: Any = step.network
        encoder, generator = network.beside["encoder"], network.beside["generator"]
        images, labels, classes = step.images, step.labels, classes_of(generator)
        if step.unlabelled is not None:
            images = step.unlabelled
            with torch.no_grad(), eval_mode(network):
                labels = network(images).argmax(1)
            # Else weights that were cast without gradients are used again (pytorch issue 112583).
            torch.clear_autocast_cache()
        mean, log_var = encoder.encode(images)
        z = sample(mean, log_var)
        new = made(generator, torch.randn_like(mean), labels, classes)
        copies = made(generator, z.detach(), labels, classes)
        seen_by_encoder = made(held(generator), z, labels, classes)
        divergence = -0.5 * (1 + log_var - mean**2 - log_var.exp()).mean()
        losses = {
            "encoder": F.mse_loss(seen_by_encoder, images) + divergence,
            "generator": for_generator(network, new, labels)
            + RECONSTRUCTION * F.mse_loss(copies, images),
            "discriminator": for_discriminator(network, images, [new, copies]),
        }
        if step.unlabelled is not None:
            with torch.no_grad():
                mean, log_var = encoder.encode(step.images)
                new = made(generator, torch.randn_like(mean), step.labels, classes)
                copies = made(generator, sample(mean, log_var), step.labels, classes)
            torch.clear_autocast_cache()
        losses["classifier"] = for_classifier(network, step.images, [new, copies], step.labels)
        self.measures = {name: loss.detach() for name, loss in losses.items()}
        return torch.stack(list(losses.values())).sum()


class Regenerated(Informed):
    """For every new label: G(z, y), z from E(x), by the encoder and generator of `VAEACGAN`."""

    needs_disagreement = False

    def __init__(self) -> None:
        super().__init__()
        self.parents, self.generate, self.needs_vae = newly_labelled, copy, False

    def make(
        self, parents: Tensor, labels_N: Tensor, candidates: Candidates
    ) -> tuple[Tensor, Tensor]:
        """See `Informed`."""
        network: Any = candidates.network
        encoder, generator = network.beside["encoder"], network.beside["generator"]
        num_classes = classes_of(generator)
        # A class that was made while people labelled is not known to it until the next round.
        parents = parents[labels_N[parents] < num_classes]
        if len(parents) == 0:
            return parents, torch.zeros(0, *candidates.image_shape)
        mean, deviation = latents(parents, replace(candidates, autoencoder=encoder))
        z = mean + deviation * torch.randn(mean.shape, generator=candidates.generator)
        parts = zip(z.split(DECODED_AT_ONCE), labels_N[parents].split(DECODED_AT_ONCE), strict=True)
        device = next(network.parameters()).device
        images = [
            made(
                generator,
                in_precision_of(generator, part.to(device)),
                labels.to(device),
                num_classes,
            )
            for part, labels in parts
        ]
        return parents, torch.cat(images).float().cpu()


def sample(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return a sample of q(z|x), reparametrised."""
    return mean + torch.randn_like(mean) * (0.5 * log_var).exp()
