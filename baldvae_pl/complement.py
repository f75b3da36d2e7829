"""Complements: which labelled images get one, and how it is made.

A policy is two functions side by side, so that *duplicate* differs from *uncertain* in one of them
and *all new* in the other, as a fair comparison needs.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from baldvae_pl.errors import SettingError
from baldvae_pl.pool import Pool

ROUNDING = 1e-5
"""A BALD score below this, in nats, is zero up to the rounding of float32."""

Threshold = Literal["lowest", "highest"] | float
"""The lowest score of the purchase, as in the paper's condition (3), the highest, or a quantile of
the scores of U, from 0 to 1."""


@runtime_checkable
class Autoencoder(Protocol):
    """A generator of images: a frozen VAE, or a part of the module that is trained."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x), each of shape (n, latent)."""

    def decode(self, z: Tensor) -> Tensor:
        """Return images of the shape and range of those that were encoded."""


def in_precision_of(module: Any, images: Tensor) -> Tensor:
    """Return images in the precision of a module's weights; as they are, if it has none."""
    weight = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    return images if weight is None else images.to(weight.dtype)


class Purchase(NamedTuple):
    """A purchase that has been chosen.

    Attributes:
        scores_N: BALD scores of all of W, in nats.
        indices: What is bought, the first choice first; negative: an image that is not in W.
        images: What is bought, as W holds its images.
        scores: BALD scores of what is bought.
        threshold: What a labelled image's score must reach to be uncertain.
        probs_K_C: Mean predictions of what is bought, if the oracle looks at them.
        ahead: What would have come next, if people label: global indices.
        ahead_probs_A_C: Mean predictions of these.
    """

    scores_N: Tensor  # noqa: N815
    indices: Tensor
    images: Tensor
    scores: Tensor
    threshold: float
    probs_K_C: Tensor | None = None  # noqa: N815
    ahead: Tensor | None = None
    ahead_probs_A_C: Tensor | None = None  # noqa: N815

    @property
    def in_w(self) -> Tensor:
        """Global indices of the images of W that are bought."""
        return self.indices[self.indices >= 0]

    def of(self, which: Tensor) -> "Purchase":
        """Return the purchase of some of its images, given by a mask."""
        return self._replace(
            indices=self.indices[which], images=self.images[which], scores=self.scores[which]
        )

    def moved(self, places: Tensor, size: int) -> "Purchase":
        """Return the purchase in a W that has gained or lost images, see `Pool.move`.

        What is gone is not asked about any more; what is new has no score yet.
        """
        there, scores_N = places >= 0, torch.zeros(size)
        scores_N[places[there]] = self.scores_N[there]
        now = places[self.indices.clamp(min=0)].where(self.indices >= 0, self.indices)
        kept = now.ne(-1) | (self.indices < 0)
        probs, ahead, ahead_probs = self.probs_K_C, self.ahead, self.ahead_probs_A_C
        stays = None if ahead is None else places[ahead] >= 0
        return self.of(kept)._replace(
            scores_N=scores_N,
            indices=now[kept],
            probs_K_C=None if probs is None else probs[kept],
            ahead=None if ahead is None else places[ahead][stays],
            ahead_probs_A_C=None if ahead_probs is None else ahead_probs[stays],
        )


Parents = Callable[[Purchase, Pool], Tensor]
"""A purchase and the pool before it -> global indices of those who get a complement, in L or among
the purchase. ``pool.generated`` holds the complements of earlier rounds."""

Generate = Callable[[Tensor, Autoencoder | None, torch.Generator], Tensor]
"""(images, autoencoder, generator) -> complements. Images in [0, 1], shape (n, C, H, W), or vectors
(n, D); the CPU generator belongs to the round."""


class Complement:
    """A complement policy.

    Args:
        parents: Who gets a complement.
        generate: How it is made.
        needs_vae: Whether ``generate`` uses the autoencoder, which is then trained before round 0
            unless it is a part of the module.
        threshold: From which score on a labelled image counts as uncertain.
    """

    needs_disagreement = False
    """Whether it is worth nothing if all posterior draws agree, since it goes by BALD scores."""

    waits = False
    """Whether it makes none before a labelled image reaches the threshold.

    Not inherited: each class says so itself, as another one may choose other parents.
    """

    def __init__(
        self,
        parents: Parents,
        generate: Generate,
        needs_vae: bool = False,
        threshold: Threshold = "lowest",
    ) -> None:
        if not isinstance(threshold, str) and not 0 <= threshold <= 1:
            raise SettingError(
                f"--acquisition.complement.threshold: {threshold} is not a quantile. Take one from "
                "0 to 1, lowest or highest."
            )
        self.parents = parents
        self.generate = generate
        self.needs_vae = needs_vae
        self.threshold = threshold


class Uncertain(Complement):
    """BALD-VAE: labelled images that are at least as uncertain as the last one bought.

    Args:
        threshold: The ``lowest`` score of the purchase, as in the paper, the ``highest``, or a
            quantile of the scores of U, from 0 to 1.
        latent: Whether a complement decodes a ``sample`` of q(z|x) or its ``mean``.
        max_per_parent: At most so many complements of one image in the whole run.
        max_share: At most this share of L and G together, hence of a batch on average, is
            generated; the most uncertain come first.
    """

    needs_disagreement = True
    waits = True

    def __init__(
        self,
        threshold: Threshold = "lowest",
        latent: Literal["sample", "mean"] = "sample",
        max_per_parent: int | None = None,
        max_share: float | None = None,
    ) -> None:
        parents = capped(at_least_as_uncertain, max_per_parent, max_share)
        super().__init__(parents, DECODE[latent], needs_vae=True, threshold=threshold)


class Duplicate(Complement):
    """Control: as `Uncertain`, but a complement is its parent. What it gains, the VAE did not.

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
        super().__init__(parents, copy, threshold=threshold)


class AllNew(Complement):
    """VAE-All: every newly labelled image.

    Args:
        latent: As of `Uncertain`.
    """

    def __init__(self, latent: Literal["sample", "mean"] = "sample") -> None:
        super().__init__(newly_labelled, DECODE[latent], needs_vae=True)


class NoComplements(Complement):
    """BALD-O: plain active learning."""

    waits = True  # for ever

    def __init__(self) -> None:
        super().__init__(nobody, copy)


def threshold_of(
    rule: Threshold, bought_K: Tensor, scores_N: Tensor, in_unlabelled_N: Tensor
) -> float:
    """Return the BALD score from which on a labelled image is uncertain.

    Args:
        rule: See `Threshold`.
        bought_K: BALD scores of the purchase.
        scores_N: BALD scores of all of W.
        in_unlabelled_N: Who of W was in U before it.
    """
    if rule == "lowest":
        return bought_K.min().item()
    if rule == "highest":
        return bought_K.max().item()
    # torch.quantile refuses more than 2^24 numbers.
    return float(np.quantile(scores_N[in_unlabelled_N].numpy(), rule))


def at_least_as_uncertain(purchase: Purchase, pool: Pool) -> Tensor:
    """Condition (3) of the paper: a(x_l) >= a(x*_K); a zero up to rounding never qualifies."""
    labelled = pool.labelled
    scores = purchase.scores_N[labelled]
    return labelled[(scores >= purchase.threshold) & (scores >= ROUNDING)]


def newly_labelled(purchase: Purchase, pool: Pool) -> Tensor:
    """Every image of W in this purchase, in order of global index."""
    del pool
    return purchase.in_w.sort().values


def nobody(purchase: Purchase, pool: Pool) -> Tensor:
    """No image at all."""
    del pool
    return purchase.indices[:0]


def capped(parents: Parents, max_per_parent: int | None, max_share: float | None) -> Parents:
    """Return the same choice of parents, but of fewer where there would be too many complements.

    Raises:
        SettingError: If a cap is out of range.
    """
    if max_per_parent is not None and max_per_parent < 1:
        raise SettingError(
            f"--acquisition.complement.max_per_parent: must be at least 1, got {max_per_parent}. "
            "For no complements take --acquisition.complement NoComplements."
        )
    if max_share is not None and not 0 < max_share < 1:
        raise SettingError(
            f"--acquisition.complement.max_share: must be between 0 and 1, got {max_share}."
        )

    def fewer(purchase: Purchase, pool: Pool) -> Tensor:
        chosen = parents(purchase, pool)
        if max_per_parent is not None:
            made_N = pool.generated.complements.parents.bincount(minlength=len(purchase.scores_N))
            chosen = chosen[made_N[chosen] < max_per_parent]
        if max_share is not None:
            labels = pool.labels_bought + len(purchase.indices)
            most = int(labels * max_share / (1 - max_share) + 1e-9)
            room = max(0, most - len(pool.generated.complements.parents))
            order = purchase.scores_N[chosen].argsort(descending=True, stable=True)
            chosen = chosen[order[:room]].sort().values
        return chosen

    return fewer


def decode_sample(
    images: Tensor, autoencoder: Autoencoder | None, generator: torch.Generator
) -> Tensor:
    """Equation (4) of the paper: x' = d(e(x)), with z sampled from q(z|x).

    The noise comes from a CPU generator, so that every accelerator makes the same complements.
    """
    assert autoencoder is not None
    mean, log_var = autoencoder.encode(images)
    noise = torch.randn(mean.shape, generator=generator).to(mean)
    return autoencoder.decode(mean + noise * (0.5 * log_var).exp())


def decode_mean(
    images: Tensor, autoencoder: Autoencoder | None, generator: torch.Generator
) -> Tensor:
    """Equation (4) of the paper, with the mean of q(z|x) for z."""
    del generator
    assert autoencoder is not None
    mean, _ = autoencoder.encode(images)
    return autoencoder.decode(mean)


DECODE: dict[str, Generate] = {"sample": decode_sample, "mean": decode_mean}


def copy(images: Tensor, autoencoder: Autoencoder | None, generator: torch.Generator) -> Tensor:
    """The parents themselves."""
    del autoencoder, generator
    return images
