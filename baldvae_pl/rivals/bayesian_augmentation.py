"""Bayesian data augmentation (Tran et al. 2017): a generator makes labelled images while it learns.

Generalised Monte Carlo EM: labels y^a are drawn from their prior and images x^a = G(z, y^a) from
the generator (E), then generator G, discriminator D and classifier C take a step (M):

    G: -log D(x^a) - log C(x^a)[y^a]
    D: -log D(x) - log (1 - D(x^a))
    C: -log C(x)[y] - log C(x^a)[y^a].

x^a is drawn anew at each step and never stored. Other than in the source all three take their step
at once, by the round's optimizer; y^a are the labels of the batch, whose distribution is that of
L; and networks are those of DCGAN, of three convolutions.
"""

from typing import Any

import torch
from torch import Tensor, nn

from baldvae_pl.objective import Objective, Step
from baldvae_pl.rivals.adversarial import (
    LATENT,
    LEARNING_RATE,
    extend_by_a_generator,
    for_classifier,
    for_discriminator,
    for_generator,
)


class BayesianAugmentation(Objective):
    """Cross-entropy on L and on as many images of a generator, which is trained beside it."""

    adds = ("generator", "discriminator")
    lr = LEARNING_RATE

    def extend(self, network: nn.Module, image_shape: tuple[int, ...], num_classes: int) -> None:
        """Give the network a ``generator`` and a ``discriminator``."""
        extend_by_a_generator(network, image_shape, num_classes, "BayesianAugmentation")

    def __call__(self, step: Step) -> Tensor:
        """Return the sum of all losses in nats."""
        network: Any = step.network
        z = torch.randn(len(step.images), LATENT).to(step.images)
        made = network.generator(z, step.labels)
        losses = {
            "generator": for_generator(network, made, step.labels),
            "discriminator": for_discriminator(network, step.images, [made]),
            "classifier": for_classifier(network, step.images, [made], step.labels),
        }
        self.measures = {name: loss.detach() for name, loss in losses.items()}
        return torch.stack(list(losses.values())).sum()
