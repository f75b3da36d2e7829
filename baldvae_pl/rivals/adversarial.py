"""What the methods with a discriminator share: networks beside the classifier, and their losses."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.errors import SettingError
from baldvae_pl.networks import ConvVAE
from baldvae_pl.networks.generators import (
    Discriminator,
    Generator,
    ImageShape,
    fake,
    held,
    real,
)

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


class ClassGenerator(nn.Module):
    """z and a class to an image, by the generator of `DCGAN`."""

    def __init__(self, image_shape: ImageShape, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.generator = Generator(image_shape, LATENT + num_classes)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return images in [0, 1], shape (n, C, H, W), from z (n, LATENT) and labels (n,)."""
        classes = F.one_hot(labels, self.num_classes).to(z)
        images: Tensor = self.generator(torch.cat([z, classes], 1))
        return images


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
    parts.generator = ClassGenerator((channels, height, width), num_classes)
    parts.discriminator = Discriminator((channels, height, width))


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
