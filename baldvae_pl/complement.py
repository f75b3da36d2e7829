"""Complements: which labelled images get one, and how it is made.

A policy is two functions side by side, so that *duplicate* differs from *uncertain* in one of them
and *all_new* in the other, as a fair comparison needs.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["all_new", "duplicate", "none", "uncertain"]

ROUNDING = 1e-5
"""A BALD score below this, in nats, is zero up to the rounding of float32."""


class Complement(NamedTuple):
    """A complement policy.

    Attributes:
        parents: (scores_N, labelled, acquired, threshold) -> global indices of the parents.
            ``scores_N`` is the BALD score of all of W, ``labelled`` is L before this purchase,
            ``acquired`` the purchase, ``threshold`` the lowest score in it unless another rule is
            chosen.
        generate: (images, vae, generator) -> complements; images in [0, 1], shape (n, C, H, W).
            Without a generator nothing is random.
        needs_vae: Whether ``generate`` uses the VAE, which is then trained before round 0.
    """

    parents: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    generate: Callable[[Tensor, Any, torch.Generator | None], Tensor]
    needs_vae: bool


def threshold_of(
    rule: Literal["lowest", "highest"] | float,
    acquired_K: Tensor,
    scores_N: Tensor,
    in_unlabelled_N: Tensor,
) -> float:
    """Return what a labelled image's score must reach to be uncertain.

    Args:
        rule: The lowest score of the purchase, as in the paper's condition (3), the highest, or a
            quantile of the scores of U, from 0 to 1.
        acquired_K: BALD scores of the purchase.
        scores_N: BALD scores of all of W.
        in_unlabelled_N: Who of W was in U before it.
    """
    if rule == "lowest":
        return acquired_K.min().item()
    if rule == "highest":
        return acquired_K.max().item()
    return float(np.quantile(scores_N[in_unlabelled_N].numpy(), rule))


def at_least_as_uncertain(
    scores_N: Tensor, labelled: Tensor, acquired: Tensor, threshold: float
) -> Tensor:
    """Condition (3) of the paper: a(x_l) >= a(x*_K); a zero up to rounding never qualifies."""
    scores = scores_N[labelled]
    return labelled[(scores >= threshold) & (scores >= ROUNDING)]


def newly_labelled(
    scores_N: Tensor, labelled: Tensor, acquired: Tensor, threshold: float
) -> Tensor:
    """Every image of this purchase, in order of global index."""
    return acquired.sort().values


def nobody(scores_N: Tensor, labelled: Tensor, acquired: Tensor, threshold: float) -> Tensor:
    """No image at all."""
    return labelled[:0]


def reconstruct(images: Tensor, vae: Any, generator: torch.Generator | None) -> Tensor:
    """Equation (4) of the paper: x' = d(e(x)), with z sampled from q(z|x), or its mean.

    The noise comes from a CPU generator, so that every accelerator makes the same complements.
    """
    z, log_var = vae.encode(images)
    if generator is not None:
        z = z + torch.randn(z.shape, generator=generator).to(z) * (0.5 * log_var).exp()
    complements: Tensor = vae.decode(z)
    return complements


def copy(images: Tensor, vae: Any, generator: torch.Generator | None) -> Tensor:
    """The parents themselves."""
    return images


uncertain = Complement(at_least_as_uncertain, reconstruct, needs_vae=True)
"""BALD-VAE."""
none = Complement(nobody, copy, needs_vae=False)
"""BALD-O: plain BALD."""
all_new = Complement(newly_labelled, reconstruct, needs_vae=True)
"""VAE-All: a complement for every newly labelled image."""
duplicate = Complement(at_least_as_uncertain, copy, needs_vae=False)
"""Control: like BALD-VAE, but the complement is its parent. What it gains, the VAE did not."""
