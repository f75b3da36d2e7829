"""VAAL (Sinha et al. 2019): a VAE hides which images have labels, and a discriminator tells.

A VAE beside the classifier learns from L and U, and a discriminator D on its latent means learns
which of the two an image is from; the VAE learns to make all look labelled. With images x_L and x_U
and means m_L and m_U, each step minimises

    VAE: negative ELBO of both + adversarial (-log D(m_L) - log D(m_U))
    D: -log D(m_L) - log (1 - D(m_U))

and the classifier its cross-entropy. What D is least sure is labelled is bought.

Other than in the source the ELBO is that of this package, a pixel, so that its weight does not
depend on the size of images; VAE and D take one step each at once, by the round's optimizer
(there: two steps of the VAE, then one of D); and they begin anew with the classifier.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.acquisition import NetworkScore
from baldvae_pl.complement import in_precision_of
from baldvae_pl.elbo import negative_elbo
from baldvae_pl.errors import SettingError
from baldvae_pl.networks import ConvVAE
from baldvae_pl.networks.generators import fake, held, real
from baldvae_pl.objective import Objective, Step
from baldvae_pl.rivals.adversarial import images_of

LATENT = 32
"""Dimensions of z, and below the hidden units of the discriminator: both as in the source."""

HIDDEN = 512


class VAAL(Objective):
    """Cross-entropy, and beside it a VAE and a discriminator of labelled from unlabelled images.

    Bought by ``--acquisition.function LeastLabelled``.

    Args:
        adversarial: Weight of the VAE's wish that all look labelled.
        unlabelled_batch_size: Images of U a step, over all processes.
    """

    unlabelled: Literal["U", "W"] | None = "U"

    def __init__(self, adversarial: float = 1.0, unlabelled_batch_size: int = 64) -> None:
        if adversarial < 0:
            raise SettingError(
                f"--model.objective.adversarial: must be at least 0, got {adversarial}."
            )
        self.adversarial = adversarial
        self.unlabelled_batch_size = unlabelled_batch_size

    def beside(
        self,
        network: nn.Module,  # noqa: ARG002
        image_shape: tuple[int, ...],
        num_classes: int,  # noqa: ARG002
    ) -> dict[str, nn.Module]:
        """Return a VAE and a discriminator of its latent means."""
        discriminator = nn.Sequential(
            nn.Linear(LATENT, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, 1),
        )
        vae = ConvVAE(images_of(image_shape, "VAAL"), latent=LATENT)
        return {"vae": vae, "discriminator": discriminator}

    def __call__(self, step: Step) -> Tensor:
        """Return the sum of all losses in nats, the ELBO's a pixel."""
        assert step.unlabelled is not None
        network: Any = step.network
        vae, discriminator = network.beside["vae"], network.beside["discriminator"]
        images = [step.images, step.unlabelled]
        elbo = torch.stack([
            torch.stack(negative_elbo(vae, part, "bernoulli")).sum()
            for part in images
        ]).sum() / step.images[0].numel()  # fmt: skip
        labelled, others = (vae.encode(part)[0] for part in images)
        seen = held(discriminator)
        hides = real(seen(labelled)) + real(seen(others))
        tells = real(discriminator(labelled.detach())) + fake(discriminator(others.detach()))
        self.measures = {"elbo": elbo.detach(), "hides": hides.detach(), "tells": tells.detach()}
        classified = F.cross_entropy(network(step.images), step.labels)
        return classified + elbo + self.adversarial * hides + tells


class LeastLabelled(NetworkScore):
    """How little an image looks like a labelled one to the discriminator of `VAAL`: a logit."""

    def score(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return scores_N, the logits of being unlabelled."""
        parts: Any = getattr(network, "beside", {})
        if "vae" not in parts:
            raise SettingError(
                "--acquisition.function: LeastLabelled asks the discriminator that VAAL trains. "
                "Take --model.objective VAAL."
            )
        vae, discriminator = parts["vae"], parts["discriminator"]
        means = in_precision_of(discriminator, vae.encode(images)[0])
        with torch.autocast(images.device.type, enabled=False):  # 8 bits make too many ties
            logits: Tensor = discriminator(means)[:, 0]
        return -logits
