"""Networks: plain `nn.Module`s that take float images in [0, 1], shape (n, C, H, W).

A classifier is a deterministic ``trunk`` and a stochastic ``head``, so that a hundred posterior
draws share one pass through the trunk; it returns logits. A VAE has ``encode`` and ``decode``.
"""

from math import prod

from jsonargparse.typing import PositiveInt
from torch import Tensor, nn
from torchvision.models import resnet18
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
        mean: Of all pixels, subtracted; by default MNIST's.
        std: Of all pixels, divided by.
    """

    def __init__(
        self, num_classes: PositiveInt = 10, mean: float = 0.1307, std: float = 0.3081
    ) -> None:
        super().__init__(
            two_convolutions(mean, std, padding=0),
            dropout_head(64 * 12 * 12, num_classes),
        )


class LeNet(TrunkAndHead):
    """Two 5×5 convolutions, each pooled, for 28×28 grey: nine times fewer features than `MNISTNet`.

    The network with which the literature counts labels on MNIST (Kirsch et al. 2019, "BatchBALD"),
    but without dropout between its convolutions, so that all draws share the trunk.

    Args:
        num_classes: Number of classes.
        mean: Of all pixels, subtracted; by default MNIST's.
        std: Of all pixels, divided by.
    """

    def __init__(
        self, num_classes: PositiveInt = 10, mean: float = 0.1307, std: float = 0.3081
    ) -> None:
        super().__init__(
            two_pooled_convolutions(Normalize((mean,), (std,)), 1, 32, 64),
            dropout_head(64 * 4 * 4, num_classes),
        )


class DigitsNet(TrunkAndHead):
    """The same in small, for the 8×8 grey digits of scikit-learn.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: PositiveInt = 10) -> None:
        super().__init__(
            two_convolutions(0.305, 0.376, padding=1),
            dropout_head(64 * 4 * 4, num_classes),
        )


class CIFAR10Net(TrunkAndHead):
    """The network of PyTorch's CIFAR-10 tutorial, for 32×32 colour, with dropout in its head.

    The tutorial's has no dropout, and its BALD would be 0.

    Args:
        num_classes: Number of classes.
        dropout: Probability to drop the inputs of each of its three linear layers.
    """

    def __init__(self, num_classes: PositiveInt = 10, dropout: float = 0.2) -> None:
        trunk = two_pooled_convolutions(Normalize((0.5,) * 3, (0.5,) * 3), 3, 6, 16)
        head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(84, num_classes),
        )
        super().__init__(trunk, head)


class ResNet18(TrunkAndHead):
    """ResNet-18 (He et al. 2016) for small images, with dropout in its head.

    As is usual for 32×32 images, the first convolution is 3×3 with stride 1 and no pooling follows.

    Args:
        num_classes: Number of classes.
        channels: 3 for colour, 1 for grey.
    """

    def __init__(self, num_classes: PositiveInt = 10, channels: PositiveInt = 3) -> None:
        trunk = resnet18()
        trunk.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        trunk.maxpool = nn.Identity()
        trunk.fc = nn.Identity()
        normalize = Normalize((0.5,) * channels, (0.25,) * channels)
        super().__init__(nn.Sequential(normalize, trunk), dropout_head(512, num_classes))


def two_convolutions(mean: float, std: float, padding: int) -> nn.Sequential:
    """Return the trunk of the official example; it normalises grey images itself."""
    return nn.Sequential(
        Normalize((mean,), (std,)),
        nn.Conv2d(1, 32, 3, padding=padding),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=padding),
        nn.MaxPool2d(2),  # before ReLU the same result for a quarter of the work
        nn.ReLU(),
        nn.Flatten(),
    )


def two_pooled_convolutions(
    normalize: nn.Module, channels: int, first: int, second: int
) -> nn.Sequential:
    """Return a trunk of two 5×5 convolutions with so many channels out, each pooled."""
    return nn.Sequential(
        normalize,
        nn.Conv2d(channels, first, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(first, second, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
    )


def dropout_head(features: int, num_classes: PositiveInt) -> nn.Sequential:
    """Return the head of the official example."""
    return nn.Sequential(
        nn.Dropout(0.25),
        nn.Linear(features, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, num_classes),
    )


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
    784-400-(20,20)-400-784.

    Args:
        image_shape: (channels, height, width).
        hidden: Units of the one hidden layer on each side.
        latent: Dimensions of z.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (1, 8, 8),
        hidden: PositiveInt = 128,
        latent: PositiveInt = 8,
    ) -> None:
        pixels = prod(image_shape)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU())
        decoder = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, pixels),
            nn.Sigmoid(),
            nn.Unflatten(1, image_shape),
        )
        super().__init__(encoder, hidden, latent, decoder)


class ConvVAE(EncoderDecoder):
    """A VAE of three convolutions each way, each halving or doubling height and width.

    Args:
        image_shape: (channels, height, width), of 8 pixels at least.
        width: Channels of the outermost convolution; they double at each step inwards.
        latent: Dimensions of z.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (3, 32, 32),
        width: int = 32,
        latent: PositiveInt = 128,
    ) -> None:
        channels, *size = image_shape
        # Halving an odd size loses a row or column, which doubling has to add again.
        sizes = [tuple(pixels // 2**step for pixels in size) for step in range(4)]
        lost = [(high % 2, wide % 2) for high, wide in sizes[:3]]
        inner = (4 * width, *sizes[3])
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
