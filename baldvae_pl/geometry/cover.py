"""Images that have the most uncovered neighbours: ProbCover."""

import numpy as np
import torch
from jsonargparse.typing import PositiveFloat
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from baldvae_pl.geometry.space import Space, points, some_of
from baldvae_pl.selection import Candidates, Selection

MOST_POINTS = 5_000
"""The graph of neighbours is that of so many images of U at random, and bounds memory."""

FOR_DISTANCES = 1_000
"""How far images are from each other is measured among so many."""


class ProbCover(Selection):
    """Again and again the image whose ball holds the most images that no other ball holds yet.

    ProbCover (Yehuda et al. 2022, "Active Learning Through a Covering Lens", NeurIPS), for the
    first labels and while labels are few: no prediction is looked at. Balls of labelled images
    cover too. Chosen are images among 5,000 of U at random, which stand for all to be covered.

    The paper's own rule for the radius, that 95 % of the balls lie within one k-means cluster, is
    for self-supervised features whose clusters are apart. In the latents of a VAE they touch, and
    its balls are so small that ten of them all lie in the densest class of MNIST.

    Args:
        radius: Of a ball, in the units of the space. Null: that of which ``|L| + K`` balls that
            hold as many images as the mean ball would hold half of all.
        space: In which images are near to each other: ``latents`` of the VAE, ``features`` of the
            trained network, which there are not before round 0, or ``images`` themselves, the
            space for vectors of a frozen network.
    """

    ranks = False

    def __init__(self, radius: PositiveFloat | None = None, space: Space = "latents") -> None:
        self.radius = radius
        self.space = space
        self.needs_vae = space == "latents"

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices."""
        count, generator = candidates.query_size, candidates.generator
        unlabelled = some_of(candidates.unlabelled, max(MOST_POINTS, count), generator)
        points_N_D = points(candidates, unlabelled, self.space)
        balls = len(candidates.labelled) + count
        radius = self.radius or fitting_radius(points_N_D, balls, generator)
        nearest = NearestNeighbors(radius=radius).fit(points_N_D.numpy())
        covers_N_N = nearest.radius_neighbors_graph(points_N_D.numpy())
        uncovered_N = np.ones(len(unlabelled))
        if len(candidates.labelled):
            labelled_L_D = points(candidates, candidates.labelled, self.space)
            uncovered_N -= nearest.radius_neighbors_graph(labelled_L_D.numpy()).max(0).toarray()[0]
        chosen: list[int] = []
        for _ in range(min(count, len(unlabelled))):
            gains_N = covers_N_N @ uncovered_N
            if not np.delete(gains_N, chosen).any():  # all is covered: now a second time
                uncovered_N[:] = 1
                gains_N = covers_N_N @ uncovered_N
            gains_N[chosen] = -1
            chosen.append(int(gains_N.argmax()))
            uncovered_N[covers_N_N[chosen[-1]].indices] = 0
        return unlabelled[chosen]


def fitting_radius(points_N_D: Tensor, balls: int, generator: torch.Generator) -> float:
    """Return the radius with which so many balls of mean content hold half of all points.

    It is the quantile 1 / (2 balls) of the distances between two points, of a thousand of them.
    """
    some = torch.randperm(len(points_N_D), generator=generator)[:FOR_DISTANCES]
    if len(some) < 2:
        return 0.0
    distances = torch.pdist(points_N_D[some]).numpy()
    return float(np.quantile(distances, 0.5 / balls))
