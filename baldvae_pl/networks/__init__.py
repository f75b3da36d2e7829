"""Networks: classifiers, autoencoders, and augmentations of what they are trained with."""

from baldvae_pl.networks.autoencoders import ConvVAE, DenseVAE, EncoderDecoder
from baldvae_pl.networks.classifiers import (
    MLP,
    CIFAR10Net,
    DigitsNet,
    LeNet,
    MNISTNet,
    ResNet18,
    TrunkAndHead,
    dropout_head,
)

__all__ = [
    "MLP",
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
