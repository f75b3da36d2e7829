"""A generator that learns from a discriminator: DCGAN (Radford et al. 2016), from 8 pixels on.

Three convolutions each way. As in the source the generator has batch normalisation, without which
all its images become one, and the discriminator leaky units; dropout keeps it from learning few
images by heart.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from baldvae_pl.networks.autoencoders import halved_three_times

ImageShape = tuple[int, int, int]


def generator(image_shape: ImageShape, latent: int, width: int = 32) -> nn.Sequential:
    """Return a network from z, shape (n, latent), to images in [0, 1], shape (n, C, H, W).

    Args:
        image_shape: (channels, height, width).
        latent: Dimensions of z.
        width: Channels of the outermost convolution; they double at each step inwards.
    """
    inner, lost = halved_three_times(image_shape, width)
    layers: list[nn.Module] = [nn.Linear(latent, prod(inner)), nn.Unflatten(1, inner)]
    sizes = [4 * width, 2 * width, width, image_shape[0]]
    for step in range(3):
        layers += [
            nn.BatchNorm2d(sizes[step]),
            nn.ReLU(),
            nn.ConvTranspose2d(sizes[step], sizes[step + 1], 4, 2, 1, lost[2 - step]),
        ]
    return nn.Sequential(*layers, nn.Sigmoid())


def discriminator(image_shape: ImageShape, width: int = 32, dropout: float = 0.3) -> nn.Sequential:
    """Return a network from images to logits of being real, shape (n, 1).

    Args:
        image_shape: (channels, height, width).
        width: Channels of the outermost convolution; they double at each step inwards.
        dropout: Probability to drop a unit.
    """
    inner, _ = halved_three_times(image_shape, width)
    layers: list[nn.Module] = []
    sizes = [image_shape[0], width, 2 * width, 4 * width]
    for step in range(3):
        layers += [
            nn.Conv2d(sizes[step], sizes[step + 1], 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(prod(inner), 1))


class DCGAN(nn.Module):
    """In place of a VAE where images are made and none are encoded, as for `GAAL` and `ASAL`.

    Args:
        image_shape: (channels, height, width), of 8 pixels at least; follows from the data, alone
            it is (1, 28, 28).
        width: Channels of the outermost convolution; they double at each step inwards.
        latent: Dimensions of z.
    """

    def __init__(
        self,
        image_shape: ImageShape | None = None,
        width: PositiveInt = 32,
        latent: PositiveInt = 100,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.generator = generator(image_shape or (1, 28, 28), latent, width)
        self.discriminator = discriminator(image_shape or (1, 28, 28), width)

    def decode(self, z: Tensor) -> Tensor:
        """Return images in [0, 1] of shape (n, channels, height, width)."""
        images: Tensor = self.generator(z)
        return images

    def losses(self, images: Tensor) -> dict[str, Tensor]:
        """Return the losses of generator and discriminator, in nats; each moves its own alone."""
        made = self.decode(torch.randn(len(images), self.latent).to(images))
        return {
            "generator": real(held(self.discriminator)(made)),
            "discriminator": real(self.discriminator(images))
            + fake(self.discriminator(made.detach())),
        }


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
