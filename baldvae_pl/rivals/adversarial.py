"""What the methods with a discriminator share: networks beside the classifier, and their losses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from baldvae_pl.errors import SettingError
from baldvae_pl.networks import ConvVAE
from baldvae_pl.networks.generators import Discriminator, Generator, ImageShape

LATENT = 100
"""Dimensions of z, as in the source of VAE-ACGAN."""

WIDTH = 32
"""Channels of the outermost convolution of the encoder."""

LEARNING_RATE = 0.0003
"""Of encoder, generator and discriminator: at 0.001 the generator learns nothing of digits."""


class Encoder(nn.Module):
    """Images to mean and log-variance of q(z|x), by the encoder of `ConvVAE`."""

    def __init__(self, image_shape: ImageShape) -> None:
        super().__init__()
        vae = ConvVAE(image_shape, WIDTH, LATENT)
        self.hidden, self.mean, self.log_var = vae.hidden, vae.mean, vae.log_var

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, each of shape (n, LATENT)."""
        hidden = self.hidden(images)
        return self.mean(hidden), self.log_var(hidden)


def extend_by_a_generator(
    network: nn.Module, image_shape: tuple[int, ...], num_classes: int, objective: str
) -> None:
    """Give a network a ``generator`` and a ``discriminator``.

    Raises:
        SettingError: If W holds no images that they can make.
    """
    if len(image_shape) != 3 or min(image_shape[1:]) < 8:
        raise SettingError(
            f"--model.objective: {objective} makes images of 8 pixels or more, and those of W have "
            f"the shape {tuple(image_shape)}. Take CrossEntropy."
        )
    parts: Any = network
    channels, height, width = image_shape
    parts.generator = Generator((channels, height, width), num_classes, LATENT)
    parts.discriminator = Discriminator((channels, height, width))


def held(module: nn.Module) -> Callable[..., Any]:
    """Return a module as a function: gradients flow through it to what it is given, not to it."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    return lambda *inputs: functional_call(module, weights, inputs)


def real(logits: Tensor) -> Tensor:
    """Return the mean cross-entropy of these logits of being real, if all are."""
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def fake(logits: Tensor) -> Tensor:
    """Return the same, if none are."""
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def for_generator(network: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of generated images: to look real, and to be given their classes."""
    logits = held(network)(images)
    return real(held(network.discriminator)(images)) + F.cross_entropy(logits, labels)


def for_discriminator(network: Any, images: Tensor, generated: list[Tensor]) -> Tensor:
    """Return the loss of the discriminator: real images from generated ones, kind by kind."""
    kinds = [part.detach() for part in generated]
    logits = network.discriminator(torch.cat([images, *kinds])).split(len(images))
    return torch.stack([real(logits[0]), *(fake(part) for part in logits[1:])]).sum()


def for_classifier(
    network: nn.Module, images: Tensor, generated: list[Tensor], labels: Tensor
) -> Tensor:
    """Return the cross-entropy on L and as much on each kind of generated images of its classes."""
    kinds = [images, *(part.detach() for part in generated)]
    logits = network(torch.cat(kinds)).split(len(images))
    return torch.stack([F.cross_entropy(part, labels) for part in logits]).sum()
