"""GAAL (Zhu and Bento 2017, "Generative adversarial active learning"): ask about made images.

A point z of the generator's latent space is moved to where the classifier is most uncertain of the
image G(z), and this image, which nobody has seen, is asked about. The source has a linear
classifier of two classes, whose least certain point lies on its boundary; for any number of classes

    z* = argmax_z H[p(y | G(z))] - prior ||z||^2 / 2,

H the entropy of the prediction without dropout, found by Adam from a random start for each image.
The second term, log N(z; 0, 1), keeps z where the generator has learnt something. The generator is
the decoder of the VAE, trained on all of W, or with `dcgan.yaml` a `DCGAN` as in the source.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical

from baldvae_pl import policies
from baldvae_pl.errors import SettingError
from baldvae_pl.policies import DECODED_AT_ONCE, latents
from baldvae_pl.posterior import eval_mode
from baldvae_pl.selection import Candidates, Selection, Synthesised


class GAAL(Selection):
    """Images that the generator makes where the classifier is most uncertain.

    They need somebody who looks at them: for an experiment ``--data.oracle Judge``, else people at
    the labelling page, or an `Oracle` of one's own.

    Args:
        steps: Of Adam for each z.
        lr: Its learning rate.
        prior: How much z is held to N(0, 1).
    """

    ranks = False
    needs_network = True
    makes_images = True
    needs_vae = True

    def __init__(self, steps: int = 100, lr: float = 0.1, prior: float = 0.01) -> None:
        check_search(steps, lr, prior)
        self.steps = steps
        self.lr = lr
        self.prior = prior

    def __call__(self, candidates: Candidates) -> Synthesised:
        """Return the images."""
        z = most_uncertain(candidates, self.steps, self.lr, self.prior)
        return Synthesised(decoded(candidates, z))


def check_search(steps: int, lr: float, prior: float) -> None:
    """Raise a SettingError if there is no such search."""
    if steps < 0:
        raise SettingError(f"--acquisition.selection.steps: must be at least 0, got {steps}.")
    if lr <= 0:
        raise SettingError(f"--acquisition.selection.lr: must be above 0, got {lr}.")
    if prior < 0:
        raise SettingError(f"--acquisition.selection.prior: must be at least 0, got {prior}.")


def most_uncertain(candidates: Candidates, steps: int, lr: float, prior: float) -> Tensor:
    """Return as many z* as are bought, shape (K, latent), on the CPU.

    Args:
        candidates: With the trained network and the generator.
        steps: Of Adam.
        lr: Its learning rate.
        prior: Weight of ||z||^2 / 2.
    """
    network: Any = candidates.network
    autoencoder: Any = candidates.autoencoder
    size = getattr(autoencoder, "latent", None)
    if size is None:
        size = latents(candidates.unlabelled[:1], candidates)[0].shape[1]
    start = torch.randn(candidates.query_size, size, generator=candidates.generator)
    device = next(network.parameters()).device
    found = []
    with eval_mode(network), eval_mode(autoencoder), torch.enable_grad():
        for part in start.split(DECODED_AT_ONCE):
            z = part.to(device).requires_grad_()
            optimizer = torch.optim.Adam([z], lr)
            for _ in range(steps):
                logits = network(policies.decoded(z, candidates)).float()
                entropy = Categorical(logits=logits).entropy().sum()
                (z.grad,) = torch.autograd.grad(prior * z.square().sum() / 2 - entropy, z)
                optimizer.step()
            found.append(z.detach().cpu())
    return torch.cat(found)


@torch.no_grad()
def decoded(candidates: Candidates, z: Tensor) -> Tensor:
    """Return what the generator makes of any number of z, on the CPU."""
    with eval_mode(candidates.autoencoder):
        parts = [policies.decoded(part, candidates) for part in z.split(DECODED_AT_ONCE)]
    return torch.cat(parts).float().cpu()
