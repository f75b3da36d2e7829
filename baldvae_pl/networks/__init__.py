"""Networks: classifiers, autoencoders, and augmentations of what they are trained with."""

from baldvae_pl.networks.autoencoders import ConvVAE, DenseVAE, EncoderDecoder
from baldvae_pl.networks.classifiers import (
    CIFAR10Net,
    DigitsNet,
    LeNet,
    MNISTNet,
    ResNet18,
    TrunkAndHead,
    VectorNet,
    dropout_head,
)
from baldvae_pl.networks.generators import DCGAN
from baldvae_pl.networks.joint import JointVAE

__all__ = [
    "DCGAN",
    "CIFAR10Net",
    "ConvVAE",
    "DenseVAE",
    "DigitsNet",
    "EncoderDecoder",
    "JointVAE",
    "LeNet",
    "MNISTNet",
    "ResNet18",
    "TrunkAndHead",
    "VectorNet",
    "dropout_head",
]
