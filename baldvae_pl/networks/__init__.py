"""Networks: plain `nn.Module`s that take float images in [0, 1], shape (n, C, H, W)."""

from baldvae_pl.networks.classifiers import (
    CIFAR10Net,
    ConvVAE,
    DenseVAE,
    DigitsNet,
    EncoderDecoder,
    LeNet,
    MNISTNet,
    ResNet18,
    TrunkAndHead,
    dropout_head,
)

__all__ = [
    "CIFAR10Net",
    "ConvVAE",
    "DenseVAE",
    "DigitsNet",
    "EncoderDecoder",
    "LeNet",
    "MNISTNet",
    "ResNet18",
    "TrunkAndHead",
    "dropout_head",
]
