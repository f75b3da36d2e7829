"""VAE-ACGAN, also BGADL (Tran et al. 2019, "Bayesian generative active deep learning").

An encoder E, a generator G, a discriminator D and the classifier C are trained together in each
round. With z from N(0, 1) and z_q from q(z|x) = E(x), each step minimises

    E: MSE(G(z_q, y), x) + KL(q(z|x) || N(0, 1))
    G: -log D(G(z, y)) - log C(G(z, y))[y] + 0.75 MSE(G(z_q, y), x)
    D: -log D(x) - log (1 - D(G(z, y))) - log (1 - D(G(z_q, y)))
    C: -log C(x)[y] - log C(G(z, y))[y] - log C(G(z_q, y))[y]

so that each part is moved by its own line alone. Images of G are drawn anew at each step, and as in
the paper each newly labelled image also gets a complement x' = G(z_q, y) that stays
(`Regenerated`).

Other than in the source all four take their step at once, by the round's optimizer (there: one
after the other, Adadelta), E, G and D at a third of the learning rate; networks are those of DCGAN,
of three convolutions; and E, G and D may learn from all of W, where the classifier says which class
an image is. Weights are as in the code of the authors, means over pixels and over dimensions of z
included.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.complement import Complement, copy, newly_labelled
from baldvae_pl.errors import SettingError
from baldvae_pl.networks.generators import held
from baldvae_pl.objective import Objective, Step
from baldvae_pl.policies import DECODED_AT_ONCE, Informed
from baldvae_pl.posterior import eval_mode
from baldvae_pl.rivals.adversarial import (
    LEARNING_RATE,
    Encoder,
    extend_by_a_generator,
    for_classifier,
    for_discriminator,
    for_generator,
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

    adds = ("encoder", "generator", "discriminator")
    lr = LEARNING_RATE

    def __init__(
        self, generator_learns_from: Literal["L", "W"] = "L", unlabelled_batch_size: int = 64
    ) -> None:
        self.unlabelled: Literal["U", "W"] | None = "W" if generator_learns_from == "W" else None
        self.unlabelled_batch_size = unlabelled_batch_size

    def extend(self, network: nn.Module, image_shape: tuple[int, ...], num_classes: int) -> None:
        """Give the network an ``encoder``, a ``generator`` and a ``discriminator``."""
        extend_by_a_generator(network, image_shape, num_classes, "VAEACGAN")
        parts: Any = network
        parts.encoder = Encoder(image_shape)  # type: ignore[arg-type]

    def __call__(self, step: Step) -> Tensor:
        """Return the sum of all losses in nats, but for reconstructions, which are squares."""
        network: Any = step.network
        images, labels = step.images, step.labels
        if step.unlabelled is not None:
            images = step.unlabelled
            with torch.no_grad(), eval_mode(network):
                labels = network(images).argmax(1)
        mean, log_var = network.encoder(images)
        z = sample(mean, log_var)
        new = network.generator(torch.randn_like(mean), labels)
        copies = network.generator(z.detach(), labels)
        divergence = -0.5 * (1 + log_var - mean**2 - log_var.exp()).mean()
        losses = {
            "encoder": F.mse_loss(held(network.generator)(z, labels), images) + divergence,
            "generator": for_generator(network, new, labels)
            + RECONSTRUCTION * F.mse_loss(copies, images),
            "discriminator": for_discriminator(network, images, [new, copies]),
        }
        if step.unlabelled is not None:
            with torch.no_grad():
                mean, log_var = network.encoder(step.images)
                new = network.generator(torch.randn_like(mean), step.labels)
                copies = network.generator(sample(mean, log_var), step.labels)
        losses["classifier"] = for_classifier(network, step.images, [new, copies], step.labels)
        self.measures = {name: loss.detach() for name, loss in losses.items()}
        return torch.stack(list(losses.values())).sum()


class Regenerated(Informed):
    """For every new label: G(z, y), z from E(x), by the encoder and generator of `VAEACGAN`."""

    def __init__(self) -> None:
        Complement.__init__(self, newly_labelled, copy)

    def make(
        self, parents: Tensor, labels_N: Tensor, candidates: Candidates
    ) -> tuple[Tensor, Tensor]:
        """See `Informed`."""
        network: Any = candidates.network
        if not hasattr(network, "encoder") or not hasattr(network, "generator"):
            raise SettingError(
                "--acquisition.complement: Regenerated asks the encoder and the generator that "
                "VAEACGAN trains. Take --model.objective VAEACGAN."
            )
        encoded = candidates.map(lambda images: torch.cat(network.encoder(images), 1), parents)
        mean, log_var = encoded.chunk(2, 1)
        z = mean + torch.randn(mean.shape, generator=candidates.generator) * (0.5 * log_var).exp()
        device = next(network.parameters()).device
        made = [
            network.generator(part.to(device), labels.to(device)).cpu()
            for part, labels in zip(
                z.split(DECODED_AT_ONCE), labels_N[parents].split(DECODED_AT_ONCE), strict=True
            )
        ]
        return parents, torch.cat(made)


def sample(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return a sample of q(z|x), reparametrised."""
    return mean + torch.randn_like(mean) * (0.5 * log_var).exp()
