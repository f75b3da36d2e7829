"""What the methods with a discriminator share: networks beside the classifier, and their losses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.errors import SettingError
from baldvae_pl.networks.generators import (
    ImageShape,
    discriminator,
    fake,
    generator,
    held,
    real,
)

LATENT = 100
"""Dimensions of z, as in the source of VAE-ACGAN."""

LEARNING_RATE = 0.0003
"""Of encoder, generator and discriminator: at 0.001 the generator learns nothing of digits."""


def images_of(image_shape: tuple[int, ...], objective: str) -> ImageShape:
    """Return the shape of images of three convolutions.

    Raises:
        SettingError: If W holds none.
    """
    if len(image_shape) != 3 or min(image_shape[1:]) < 8:
        raise SettingError(
            f"--model.objective: {objective} takes images of 8 pixels or more, and those of W have "
            f"the shape {tuple(image_shape)}. Take CrossEntropy."
        )
    channels, height, width = image_shape
    return channels, height, width


def gan(image_shape: ImageShape, num_classes: int) -> dict[str, nn.Module]:
    """Return a generator from z and a class, and a discriminator."""
    return {
        "generator": generator(image_shape, LATENT + num_classes),
        "discriminator": discriminator(image_shape),
    }


def classes_of(generator: Any) -> int:
    """Return the number of classes that a generator of `gan` knows."""
    return int(generator[0].in_features) - LATENT


def made(make: Callable[[Tensor], Tensor], z: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return images of these classes, shape (n, C, H, W), in [0, 1].

    Args:
        make: The generator.
        z: Shape (n, LATENT).
        labels: Shape (n,).
        num_classes: Number of classes.
    """
    return make(torch.cat([z, F.one_hot(labels, num_classes).to(z)], 1))


def for_generator(network: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of generated images: to look real, and to be given their classes."""
    logits = held(network)(images)
    fooled = held(network.beside["discriminator"])(images)
    return real(fooled) + F.cross_entropy(logits, labels)


def for_discriminator(network: Any, images: Tensor, generated: list[Tensor]) -> Tensor:
    """Return the loss of the discriminator: real images from generated ones, kind by kind."""
    kinds = [part.detach() for part in generated]
    logits = network.beside["discriminator"](torch.cat([images, *kinds])).split(len(images))
    return torch.stack([real(logits[0]), *(fake(part) for part in logits[1:])]).sum()


def for_classifier(
    network: nn.Module, images: Tensor, generated: list[Tensor], labels: Tensor
) -> Tensor:
    """Return the cross-entropy on L and as much on each kind of generated images of its classes."""
    kinds = [images, *(part.detach() for part in generated)]
    logits = network(torch.cat(kinds)).split(len(images))
    return torch.stack([F.cross_entropy(part, labels) for part in logits]).sum()
