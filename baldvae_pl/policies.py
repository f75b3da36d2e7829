"""Complement policies beyond the paper's.

`AffineCopy` is a control. The others are `Informed`: what they make depends on more than the
parents, such as the labels, the classifier's draws or the images of U.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from baldvae_pl.acquisition import bald
from baldvae_pl.complement import (
    Autoencoder,
    Complement,
    Threshold,
    at_least_as_uncertain,
    capped,
    decode_sample,
    in_precision_of,
)
from baldvae_pl.errors import SettingError
from baldvae_pl.selection import Candidates
from baldvae_pl.views import random_affine

DECODED_AT_ONCE = 128
"""Images decoded at a time."""

DISTANCES_AT_ONCE = 2**24
"""Distances between latents that are looked at at a time."""


class AffineCopy(Complement):
    """Control: as `Duplicate`, but moved: turned by up to 10° and shifted by up to 10 % each way.

    What a complement gains beyond it, plain augmentation did not.

    Args:
        threshold: As of `Uncertain`.
        max_per_parent: As of `Uncertain`.
        max_share: As of `Uncertain`.
    """

    needs_disagreement = True
    waits = True

    def __init__(
        self,
        threshold: Threshold = "lowest",
        max_per_parent: int | None = None,
        max_share: float | None = None,
    ) -> None:
        parents = capped(at_least_as_uncertain, max_per_parent, max_share)
        super().__init__(parents, moved_copy, threshold=threshold)


class Informed(Complement, ABC):
    """A policy that sees the candidates and labels of a round when it makes complements.

    Args:
        threshold: As of `Uncertain`.
        max_per_parent: As of `Uncertain`.
        max_share: As of `Uncertain`.
    """

    needs_disagreement = True

    def __init__(
        self,
        threshold: Threshold = "lowest",
        max_per_parent: int | None = None,
        max_share: float | None = None,
    ) -> None:
        parents = capped(at_least_as_uncertain, max_per_parent, max_share)
        # It is by decode_sample that the autoencoder is tried before a run begins.
        super().__init__(parents, decode_sample, needs_vae=True, threshold=threshold)

    @abstractmethod
    def make(
        self, parents: Tensor, labels_N: Tensor, candidates: Candidates
    ) -> tuple[Tensor, Tensor]:
        """Return complements and before them the parent of each, on the CPU.

        Called on every process, without gradients, network and autoencoder in eval mode.

        Args:
            parents: Global indices in L.
            labels_N: Of W, after the purchase; negative in U.
            candidates: How to look at images of W; ``labelled`` is L after the purchase.

        Returns:
            Global indices in L, a parent once for each of its complements, and images in [0, 1].
        """


class Retrieval(Informed):
    """A real image: that of U nearest to a sample of the parent's q(z|x), by its latent mean.

    If the classifier gives it another label than the parent's, averaged over the draws, there is
    none.
    """

    waits = True

    def make(
        self, parents: Tensor, labels_N: Tensor, candidates: Candidates
    ) -> tuple[Tensor, Tensor]:
        """See `Informed`."""
        unlabelled = candidates.unlabelled
        if len(unlabelled) == 0:
            return parents[:0], torch.zeros(0, *candidates.image_shape)
        mean, deviation = latents(parents, candidates)
        z = mean + deviation * torch.randn(mean.shape, generator=candidates.generator)
        means_U, _ = latents(unlabelled, candidates)
        parts = z.split(max(1, DISTANCES_AT_ONCE // len(unlabelled)))
        found = unlabelled[torch.cat([torch.cdist(part, means_U).argmin(1) for part in parts])]
        agreed = candidates.log_probs(found).exp().mean(1).argmax(1) == labels_N[parents]
        return parents[agreed], candidates.map(lambda images: images, found)[agreed]


class Mixed(Informed):
    """Between two of a class: z' = z_i + u (z_j - z_i), u from 0 to 1/2, decoded.

    z_i is the parent's latent mean, z_j that of another labelled image of its class, at random; one
    that is alone in its class is decoded from its own mean.
    """

    waits = True

    def make(
        self, parents: Tensor, labels_N: Tensor, candidates: Candidates
    ) -> tuple[Tensor, Tensor]:
        """See `Informed`."""
        other = another_of_the_class(parents, candidates.labelled, labels_N, candidates.generator)
        share = torch.rand(len(parents), 1, generator=candidates.generator) / 2
        (z_i, _), (z_j, _) = latents(parents, candidates), latents(other, candidates)
        parts = (z_i + share * (z_j - z_i)).split(DECODED_AT_ONCE)
        return parents, torch.cat([decoded(part, candidates).cpu() for part in parts])


class MostUncertain(Informed):
    """The most uncertain of ten: of ten samples of q(z|x), decoded, the one with the highest BALD.

    Only those count to which the classifier gives the parent's label with a probability of 1/2 or
    more, averaged over the draws.
    """

    waits = True

    def make(
        self, parents: Tensor, labels_N: Tensor, candidates: Candidates
    ) -> tuple[Tensor, Tensor]:
        """See `Informed`."""
        assert candidates.draws is not None
        mean, deviation = latents(parents, candidates)
        best = torch.full((len(parents),), -1.0)
        images = torch.zeros(len(parents), *candidates.image_shape)
        for _ in range(10):
            z = mean + deviation * torch.randn(mean.shape, generator=candidates.generator)
            for part in torch.arange(len(parents)).split(DECODED_AT_ONCE):
                made = decoded(z[part], candidates)
                log_probs = candidates.draws(made).cpu()
                probs = log_probs.exp().mean(1)
                of_label = probs.gather(1, labels_N[parents[part], None])[:, 0]
                scores = bald(log_probs).where(of_label >= 0.5, -1.0)
                better = scores > best[part]
                best[part[better]] = scores[better]
                images[part[better]] = made[better.to(made.device)].float().cpu()
        return parents[best >= 0], images[best >= 0]


def latents(indices: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of q(z|x) of images of W, each (n, latent), on the CPU."""
    autoencoder: Any = candidates.autoencoder

    def encode(images: Tensor) -> Tensor:
        return torch.cat(autoencoder.encode(in_precision_of(autoencoder, images)), 1)

    mean, log_var = candidates.map(encode, indices).chunk(2, 1)
    return mean, (0.5 * log_var).exp()


def decoded(z: Tensor, candidates: Candidates) -> Tensor:
    """Return what the decoder makes of z, on the accelerator, as the network takes it."""
    network: Any = candidates.network
    autoencoder: Any = candidates.autoencoder
    on_device = z.to(next(network.parameters()).device)
    images: Tensor = autoencoder.decode(in_precision_of(autoencoder, on_device))
    return in_precision_of(network, images)


def another_of_the_class(
    indices: Tensor, labelled: Tensor, labels_N: Tensor, generator: torch.Generator
) -> Tensor:
    """Return for each of some labelled images a random other one of its class, or else itself.

    Args:
        indices: Global indices, of images in L.
        labelled: Global indices of L.
        labels_N: Of W.
        generator: On the CPU.
    """
    classes = labels_N[labelled]
    by_class = labelled[classes.argsort(stable=True)]
    counts = classes.bincount()
    begins = counts.cumsum(0) - counts
    place_N = torch.empty_like(labels_N)
    place_N[by_class] = torch.arange(len(labelled))
    own = labels_N[indices]
    drawn = torch.rand(len(indices), generator=generator)
    further = 1 + (drawn * (counts[own] - 1)).long()
    return by_class[begins[own] + (place_N[indices] - begins[own] + further) % counts[own]]


def moved_copy(
    images: Tensor, autoencoder: Autoencoder | None, generator: torch.Generator
) -> Tensor:
    """The parents, each turned by up to 10° and shifted by up to 10 % of height and width."""
    del autoencoder
    if images.ndim == 2:
        raise SettingError(
            "--acquisition.complement: AffineCopy moves pictures, and W is vectors. Take Duplicate."
        )
    return random_affine(images, 10, 0, 0.1, generator=generator)
