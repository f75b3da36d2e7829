"""Networks: plain `nn.Module`s that take float images in [0, 1], shape (n, C, H, W).

A classifier is a deterministic ``trunk`` and a stochastic ``head``, so that a hundred posterior
draws share one pass through the trunk; it returns logits. A VAE has ``encode`` and ``decode``.
"""

from math import prod

from torch import Tensor, nn
from torchvision.transforms import Normalize


class TrunkAndHead(nn.Module):
    """A classifier in two parts.

    Args:
        trunk: Images to features of shape (n, D), without dropout.
        head: Features to logits, with dropout.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape (n, num_classes)."""
        logits: Tensor = self.head(self.trunk(images))
        return logits


class MNISTNet(TrunkAndHead):
    """The network of PyTorch's official `mnist` example (since November 2019), for 28×28 grey.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(
            two_convolutions(0.1307, 0.3081, padding=0),
            dropout_head(64 * 12 * 12, num_classes),
        )


class DigitsNet(TrunkAndHead):
    """The same in small, for the 8×8 grey digits of scikit-learn.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(
            two_convolutions(0.305, 0.376, padding=1),
            dropout_head(64 * 4 * 4, num_classes),
        )


def two_convolutions(mean: float, std: float, padding: int) -> nn.Sequential:
    """Return the trunk of the official example; it normalises grey images itself."""
    return nn.Sequential(
        Normalize((mean,), (std,)),
        nn.Conv2d(1, 32, 3, padding=padding),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )


def dropout_head(features: int, num_classes: int) -> nn.Sequential:
    """Return the head of the official example."""
    return nn.Sequential(
        nn.Dropout(0.25),
        nn.Linear(features, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, num_classes),
    )


class DenseVAE(nn.Module):
    """A VAE of one hidden layer each way; its defaults suit 8×8 digits.

    With (1, 28, 28), 400 and 20 it is that of PyTorch's official `vae` example,
    784-400-(20,20)-400-784.

    Args:
        image_shape: (channels, height, width).
        hidden: Units of the one hidden layer on each side.
        latent: Dimensions of z.
    """

    def __init__(
        self, image_shape: tuple[int, int, int] = (1, 8, 8), hidden: int = 128, latent: int = 8
    ) -> None:
        super().__init__()
        pixels = prod(image_shape)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU())
        self.mean = nn.Linear(hidden, latent)
        self.log_var = nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, pixels),
            nn.Sigmoid(),
            nn.Unflatten(1, image_shape),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x), each of shape (n, latent)."""
        hidden = self.hidden(images)
        return self.mean(hidden), self.log_var(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Return images in [0, 1] of shape (n, channels, height, width)."""
        images: Tensor = self.decoder(z)
        return images
