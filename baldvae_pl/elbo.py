"""The evidence lower bound: what a variational autoencoder is trained for."""

from math import e, pi
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baldvae_pl.complement import Autoencoder

Likelihood = Literal["bernoulli", "gaussian"]
"""Of images given z: binary cross-entropy, as in PyTorch's official example, or a Gaussian of one
variance for all pixels, each batch's best (Rybkin et al. 2021, "sigma-VAE")."""


def negative_elbo(
    autoencoder: Autoencoder, images: Tensor, likelihood: Likelihood
) -> tuple[Tensor, Tensor]:
    """Return the two parts of the negative ELBO, in nats, averaged over images.

    One sample of z an image, reparametrised (Kingma and Welling 2014).

    Args:
        autoencoder: Encodes and decodes.
        images: Floats in [0, 1], shape (n, C, H, W), or vectors (n, D).
        likelihood: Of images given z.

    Returns:
        The reconstruction's negative log-likelihood, summed over pixels, and the KL divergence of
        q(z|x) from N(0, 1).
    """
    mean, log_var = autoencoder.encode(images)
    z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
    decoded = autoencoder.decode(z).to(images)
    with torch.autocast(images.device.type, enabled=False):  # which refuses this loss on CUDA
        if likelihood == "bernoulli":
            of_a_pixel = F.binary_cross_entropy(decoded, images)
        else:
            of_a_pixel = 0.5 * (2 * pi * e * F.mse_loss(decoded, images)).log()
    divergence = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1).mean()
    return of_a_pixel * images[0].numel(), divergence
