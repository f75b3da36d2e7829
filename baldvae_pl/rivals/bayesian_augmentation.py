"""Bayesian data augmentation (Tran et al. 2017): a generator makes labelled images while it learns.

Generalised Monte Carlo EM: labels y^a are drawn from their prior and images x^a = G(z, y^a) from
the generator (E), then generator G, discriminator D and classifier C take a step (M):

    G: -log D(x^a) - log C(x^a)[y^a]
    D: -log D(x) - log (1 - D(x^a))
    C: -log C(x)[y] - log C(x^a)[y^a].

x^a is drawn anew at each step and never stored. Other than in the source all three take their step
at once, by the round's optimizer, G and D with a learning rate of their own; y^a are the labels of
the batch, whose distribution is that of L; and networks are those of DCGAN, of three convolutions.
"""

from typing import Any

import torch
from torch import Tensor, nn

from baldvae_pl.objective import Objective, Step
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


class BayesianAugmentation(Objective):
    """Cross-entropy on L and on as many images of a generator, which is trained beside it."""

    lr = LEARNING_RATE
    moves_images = True  # generated ones are not like those that are tested

    def beside(
        self,
        network: nn.Module,  # noqa: ARG002
        image_shape: tuple[int, ...],
        num_classes: int,
    ) -> dict[str, nn.Module]:
        """Return a generator and a discriminator."""
        return gan(images_of(image_shape, "BayesianAugmentation"), num_classes)

    def __call__(self, step: Step) -> Tensor:
        """Return the sum of all losses in nats."""
        network: Any = step.network
        z = torch.randn(len(step.images), LATENT).to(step.images)
        generator = network.beside["generator"]
        new = made(generator, z, step.labels, classes_of(generator))
        losses = {
            "generator": for_generator(network, new, step.labels),
            "discriminator": for_discriminator(network, step.images, [new]),
            "classifier": for_classifier(network, step.images, [new], step.labels),
        }
        self.measures = {name: loss.detach() for name, loss in losses.items()}
        return torch.stack(list(losses.values())).sum()
