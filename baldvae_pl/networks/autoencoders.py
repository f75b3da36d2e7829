"""Autoencoders: plain `nn.Module`s with ``encode`` and ``decode``, for images in [0, 1]."""

from math import prod

from jsonargparse.typing import PositiveInt
from torch import Tensor, nn


class EncoderDecoder(nn.Module):
    """The two halves of a VAE.

    Args:
        encoder: Images to hidden units of shape (n, hidden).
        hidden: Their number.
        latent: Dimensions of z.
        decoder: z to images in [0, 1].
    """

    def __init__(
        self, encoder: nn.Module, hidden: PositiveInt, latent: PositiveInt, decoder: nn.Module
    ) -> None:
        super().__init__()
        self.hidden = encoder
        self.mean = nn.Linear(hidden, latent)
        self.log_var = nn.Linear(hidden, latent)
        self.decoder = decoder

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x), each of shape (n, latent)."""
        hidden = self.hidden(images)
        return self.mean(hidden), self.log_var(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Return images in [0, 1] of shape (n, channels, height, width)."""
        images: Tensor = self.decoder(z)
        return images


class DenseVAE(EncoderDecoder):
    """A VAE of one hidden layer each way; its defaults suit 8×8 digits.

    With (1, 28, 28), 400 and 20 it is that of PyTorch's official `vae` example,
    784-400-(20,20)-400-784. Vectors have no range, so for them its last layer is linear.

    Args:
        hidden: Units of the one hidden layer on each side.
        latent: Dimensions of z.
        image_shape: (channels, height, width), or (features,) of vectors; follows from the data,
            alone it is (1, 8, 8).
    """

    def __init__(
        self,
        image_shape: tuple[int, ...] | None = None,
        hidden: PositiveInt = 128,
        latent: PositiveInt = 8,
    ) -> None:
        image_shape = image_shape or (1, 8, 8)
        pixels = prod(image_shape)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU())
        decoder = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, pixels),
            nn.Sigmoid() if len(image_shape) == 3 else nn.Identity(),
            nn.Unflatten(1, image_shape),
        )
        super().__init__(encoder, hidden, latent, decoder)


class ConvVAE(EncoderDecoder):
    """A VAE of three convolutions each way, each halving or doubling height and width.

    Args:
        width: Channels of the outermost convolution; they double at each step inwards.
        latent: Dimensions of z.
        image_shape: (channels, height, width), of 8 pixels at least; follows from the data, alone
            it is (3, 32, 32).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        width: PositiveInt = 32,
        latent: PositiveInt = 128,
    ) -> None:
        channels = (image_shape or (3, 32, 32))[0]
        inner, lost = halved_three_times(image_shape or (3, 32, 32), width)
        encoder = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
        )
        decoder = nn.Sequential(
            nn.Linear(latent, prod(inner)),
            nn.Unflatten(1, inner),
            nn.ReLU(),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, lost[2]),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, lost[1]),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, 2, 1, lost[0]),
            nn.Sigmoid(),
        )
        super().__init__(encoder, prod(inner), latent, decoder)


def halved_three_times(
    image_shape: tuple[int, int, int], width: int
) -> tuple[tuple[int, int, int], list[tuple[int, int]]]:
    """Return the shape of the innermost features, and what each halving loses.

    Halving an odd size loses a row or column, which doubling has to add again.

    Args:
        image_shape: (channels, height, width).
        width: Channels of the outermost convolution; they double at each step inwards.
    """
    sizes = [(image_shape[1] // 2**step, image_shape[2] // 2**step) for step in range(4)]
    return (4 * width, *sizes[3]), [(high % 2, wide % 2) for high, wide in sizes[:3]]
