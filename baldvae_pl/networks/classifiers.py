"""Classifiers: plain `nn.Module`s that take float images in [0, 1], shape (n, C, H, W).

Each is a deterministic ``trunk`` and a stochastic ``head``, so that a hundred posterior draws share
one pass through the trunk; it returns logits. Their number of classes and image shape follow from
the data unless they are given.
"""

from math import prod

from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.transforms import Normalize

ImageShape = tuple[int, int, int]


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
    """The network of PyTorch's official `mnist` example (since November 2019).

    Args:
        num_classes: Number of classes; follows from the data, alone it is 10.
        mean: Of all pixels, subtracted; by default MNIST's.
        std: Of all pixels, divided by.
        image_shape: (channels, height, width); follows from the data, alone it is (1, 28, 28).
    """

    def __init__(
        self,
        num_classes: PositiveInt | None = None,
        mean: float = 0.1307,
        std: float = 0.3081,
        image_shape: ImageShape | None = None,
    ) -> None:
        shape = image_shape or (1, 28, 28)
        super().__init__(
            two_convolutions(shape, mean, std, padding=0),
            dropout_head(64 * ((shape[1] - 4) // 2) * ((shape[2] - 4) // 2), num_classes or 10),
        )


class LeNet(TrunkAndHead):
    """Two 5×5 convolutions, each pooled: nine times fewer features than `MNISTNet` for 28×28.

    The network with which the literature counts labels on MNIST (Kirsch et al. 2019, "BatchBALD"),
    but without dropout between its convolutions, so that all draws share the trunk.

    Args:
        num_classes: Number of classes; follows from the data, alone it is 10.
        mean: Of all pixels, subtracted; by default MNIST's.
        std: Of all pixels, divided by.
        image_shape: (channels, height, width); follows from the data, alone it is (1, 28, 28).
        width: Channels of the first convolution; the second has twice as many.
        batch_norm: Normalise after each convolution, which learning from unlabelled images needs.
    """

    def __init__(
        self,
        num_classes: PositiveInt | None = None,
        mean: float = 0.1307,
        std: float = 0.3081,
        image_shape: ImageShape | None = None,
        width: PositiveInt = 32,
        batch_norm: bool = False,
    ) -> None:
        shape = image_shape or (1, 28, 28)
        super().__init__(
            two_pooled_convolutions(shape, mean, std, width, 2 * width, batch_norm),
            dropout_head(2 * width * pooled_twice(shape), num_classes or 10),
        )


class DigitsNet(TrunkAndHead):
    """`MNISTNet` with padding, for images as small as the 8×8 digits of scikit-learn.

    Args:
        num_classes: Number of classes; follows from the data, alone it is 10.
        image_shape: (channels, height, width); follows from the data, alone it is (1, 8, 8).
    """

    def __init__(
        self, num_classes: PositiveInt | None = None, image_shape: ImageShape | None = None
    ) -> None:
        shape = image_shape or (1, 8, 8)
        super().__init__(
            two_convolutions(shape, 0.305, 0.376, padding=1),
            dropout_head(64 * (shape[1] // 2) * (shape[2] // 2), num_classes or 10),
        )


class CIFAR10Net(TrunkAndHead):
    """The network of PyTorch's CIFAR-10 tutorial, with dropout in its head.

    The tutorial's has no dropout, and its BALD would be 0.

    Args:
        num_classes: Number of classes; follows from the data, alone it is 10.
        dropout: Probability to drop the inputs of each of its three linear layers.
        image_shape: (channels, height, width); follows from the data, alone it is (3, 32, 32).
    """

    def __init__(
        self,
        num_classes: PositiveInt | None = None,
        dropout: ClosedUnitInterval = 0.2,
        image_shape: ImageShape | None = None,
    ) -> None:
        shape = image_shape or (3, 32, 32)
        trunk = two_pooled_convolutions(shape, 0.5, 0.5, 6, 16)  # before the head: draws weights
        head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(16 * pooled_twice(shape), 120),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(84, num_classes or 10),
        )
        super().__init__(trunk, head)


class ResNet18(TrunkAndHead):
    """ResNet-18 (He et al. 2016) for small images of any size, with dropout in its head.

    As is usual for 32×32 images, the first convolution is 3×3 with stride 1 and no pooling follows.

    Args:
        num_classes: Number of classes; follows from the data, alone it is 10.
        channels: 3 for colour, 1 for grey; follows from the data, alone it is 3.
    """

    def __init__(
        self, num_classes: PositiveInt | None = None, channels: PositiveInt | None = None
    ) -> None:
        channels = channels or 3
        trunk = resnet18()
        trunk.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        trunk.maxpool = nn.Identity()
        trunk.fc = nn.Identity()
        normalize = Normalize((0.5,) * channels, (0.25,) * channels)
        super().__init__(nn.Sequential(normalize, trunk), dropout_head(512, num_classes or 10))


class VectorNet(TrunkAndHead):
    """One hidden layer, for vectors such as those of a frozen network.

    Each vector is brought to mean 0 and variance 1 first (Ba et al. 2016, layer normalisation
    without weights), so that the scale that its network gives it does not matter.

    Args:
        num_classes: Number of classes; follows from the data, alone it is 10.
        image_shape: (features,) of vectors, or (channels, height, width); follows from the data,
            alone it is (1, 8, 8).
    """

    def __init__(
        self,
        num_classes: PositiveInt | None = None,
        image_shape: tuple[int, ...] | None = None,
    ) -> None:
        features = prod(image_shape or (1, 8, 8))
        trunk = nn.Sequential(nn.Flatten(), nn.LayerNorm(features, elementwise_affine=False))
        super().__init__(trunk, dropout_head(features, num_classes or 10))


def two_convolutions(shape: ImageShape, mean: float, std: float, padding: int) -> nn.Sequential:
    """Return the trunk of the official example; it normalises images itself."""
    channels = shape[0]
    return nn.Sequential(
        Normalize((mean,) * channels, (std,) * channels),
        nn.Conv2d(channels, 32, 3, padding=padding),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=padding),
        nn.MaxPool2d(2),  # before ReLU the same result for a quarter of the work
        nn.ReLU(),
        nn.Flatten(),
    )


def two_pooled_convolutions(
    shape: ImageShape, mean: float, std: float, first: int, second: int, batch_norm: bool = False
) -> nn.Sequential:
    """Return a trunk of two 5×5 convolutions with so many channels out, each pooled."""
    channels = shape[0]
    return nn.Sequential(
        Normalize((mean,) * channels, (std,) * channels),
        nn.Conv2d(channels, first, 5),
        nn.MaxPool2d(2),
        *(
            [nn.BatchNorm2d(first)] if batch_norm else []
        ),  # after pooling, for a quarter of the work
        nn.ReLU(),
        nn.Conv2d(first, second, 5),
        nn.MaxPool2d(2),
        *([nn.BatchNorm2d(second)] if batch_norm else []),
        nn.ReLU(),
        nn.Flatten(),
    )


def pooled_twice(shape: ImageShape) -> int:
    """Return the number of positions that `two_pooled_convolutions` leaves of an image."""
    height, width = (((size - 4) // 2 - 4) // 2 for size in shape[1:])
    return height * width


def dropout_head(features: int, num_classes: int) -> nn.Sequential:
    """Return the head of the official example."""
    return nn.Sequential(
        nn.Dropout(0.25),
        nn.Linear(features, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, num_classes),
    )
