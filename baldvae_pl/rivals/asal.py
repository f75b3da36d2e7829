"""ASAL (Mayer and Timofte 2020): make an uncertain image, and ask about the real one nearest to it.

The search of `GAAL` finds where the classifier is most uncertain of what the generator makes; then
the nearest image of U, which nobody has to imagine, is asked about. The source looks for it in one
of several feature spaces by a tree, in less than linear time; here U itself is looked at, or if it
is large as many random images of it as `KCenter` looks at. The generator is that of `GAAL`.
"""

from typing import Any

import torch
from torch import Tensor

from baldvae_pl.complement import in_precision_of
from baldvae_pl.geometry.diverse import MOST_POINTS
from baldvae_pl.geometry.space import Space, points, some_of
from baldvae_pl.policies import DISTANCES_AT_ONCE
from baldvae_pl.posterior import eval_mode
from baldvae_pl.rivals.gaal import check_search, decoded, most_uncertain
from baldvae_pl.selection import Candidates, Selection


class ASAL(Selection):
    """The real images nearest to made ones of which the classifier is most uncertain.

    Args:
        space: In which images are near: ``latents`` of the VAE, ``features`` of the trained
            network's trunk, or ``images``, pixel by pixel.
        steps: Of Adam for each z.
        lr: Its learning rate.
        prior: How much z is held to N(0, 1).
    """

    ranks = False
    needs_network = True
    needs_vae = True

    def __init__(
        self, space: Space = "latents", steps: int = 100, lr: float = 0.1, prior: float = 0.01
    ) -> None:
        check_search(steps, lr, prior)
        self.space: Space = space
        self.steps = steps
        self.lr = lr
        self.prior = prior

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices."""
        wanted = most_uncertain(candidates, self.steps, self.lr, self.prior)
        if self.space != "latents":
            wanted = self.seen_in_space(candidates, decoded(candidates, wanted))
        most = max(MOST_POINTS, candidates.query_size)
        unlabelled = some_of(candidates.unlabelled, most, candidates.generator)
        there = points(candidates, unlabelled, self.space)
        return unlabelled[nearest_and_different(wanted, there)]

    @torch.no_grad()
    def seen_in_space(self, candidates: Candidates, images: Tensor) -> Tensor:
        """Return images as points of the space, on the CPU."""
        if self.space == "images":
            return images.flatten(1)
        network: Any = candidates.network
        device = next(network.parameters()).device
        with eval_mode(network):
            features: Tensor = network.trunk(in_precision_of(network, images.to(device)))
        return features.flatten(1).float().cpu()


def nearest_and_different(wanted: Tensor, there: Tensor) -> Tensor:
    """Return for each wanted point, in order, the nearest that no earlier one has, if any is left.

    Args:
        wanted: Shape (K, D).
        there: Shape (n, D).

    Returns:
        Places in ``there``, shape (min(K, n),).
    """
    count = min(len(wanted), len(there))
    parts = wanted[:count].split(max(1, DISTANCES_AT_ONCE // len(there)))
    taken: dict[int, None] = {}
    for part in parts:
        # Of count neighbours one is free, since fewer were taken before.
        nearest = torch.cdist(part, there).topk(count, largest=False).indices
        for places in nearest:
            taken[next(place for place in places.tolist() if place not in taken)] = None
    return torch.tensor(list(taken))
