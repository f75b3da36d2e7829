"""Generator and discriminator of DCGAN (Radford et al. 2016), for images of 8 pixels or more.

Three convolutions each. As there, batch normalisation in the generator, without which all images
become one, and leaky units in the discriminator; dropout keeps it from learning few images by
heart.
"""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.networks.autoencoders import halved_three_times

ImageShape = tuple[int, int, int]


class Generator(nn.Module):
    """z and a class to an image.

    Args:
        image_shape: (channels, height, width).
        num_classes: Number of classes.
        latent: Dimensions of z.
        width: Channels of the outermost convolution; they double at each step inwards.
    """

    def __init__(
        self, image_shape: ImageShape, num_classes: int, latent: int = 100, width: int = 32
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        inner, lost = halved_three_times(image_shape, width)
        layers: list[nn.Module] = [
            nn.Linear(latent + num_classes, prod(inner)),
            nn.Unflatten(1, inner),
        ]
        sizes = [4 * width, 2 * width, width, image_shape[0]]
        for step in range(3):
            layers += [
                nn.BatchNorm2d(sizes[step]),
                nn.ReLU(),
                nn.ConvTranspose2d(sizes[step], sizes[step + 1], 4, 2, 1, lost[2 - step]),
            ]
        self.layers = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return images in [0, 1], shape (n, C, H, W), from z (n, latent) and labels (n,)."""
        classes = F.one_hot(labels, self.num_classes).to(z)
        images: Tensor = self.layers(torch.cat([z, classes], 1))
        return images


class Discriminator(nn.Module):
    """Images to logits of being real.

    Args:
        image_shape: (channels, height, width).
        width: Channels of the outermost convolution; they double at each step inwards.
        dropout: Probability to drop a unit.
    """

    def __init__(self, image_shape: ImageShape, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        inner, _ = halved_three_times(image_shape, width)
        layers: list[nn.Module] = []
        sizes = [image_shape[0], width, 2 * width, 4 * width]
        for step in range(3):
            layers += [
                nn.Conv2d(sizes[step], sizes[step + 1], 4, 2, 1),
                nn.LeakyReLU(0.2),
                nn.Dropout(dropout),
            ]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(prod(inner), 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape (n,)."""
        logits: Tensor = self.layers(images)[:, 0]
        return logits
