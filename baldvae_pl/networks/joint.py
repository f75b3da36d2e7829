"""A network that is classifier and autoencoder at once."""

from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from baldvae_pl.networks.autoencoders import ConvVAE
from baldvae_pl.networks.classifiers import dropout_head


class JointVAE(ConvVAE):
    """`ConvVAE` with a classifier's head: q(z|x) and the classes are read off the same features.

    It makes the complements itself, with the weights of the round. Its objective is ``Joint``.

    Args:
        num_classes: Number of classes; follows from the data, alone it is 10.
        image_shape: (channels, height, width), of 8 pixels at least; follows from the data, alone
            it is (3, 32, 32).
        width: Channels of the outermost convolution; they double at each step inwards.
        latent: Dimensions of z.
    """

    def __init__(
        self,
        num_classes: PositiveInt | None = None,
        image_shape: tuple[int, int, int] | None = None,
        width: PositiveInt = 32,
        latent: PositiveInt = 20,
    ) -> None:
        super().__init__(image_shape, width, latent)
        self.head = dropout_head(self.mean.in_features, num_classes or 10)

    @property
    def trunk(self) -> nn.Module:
        """The encoder up to the features, without dropout."""
        return self.hidden

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape (n, num_classes)."""
        logits: Tensor = self.head(self.trunk(images))
        return logits
