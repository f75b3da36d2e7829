"""Images that have the most uncovered neighbours: ProbCover."""

import numpy as np
import torch
from jsonargparse.typing import PositiveFloat
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from baldvae_pl.geometry.clusters import k_means
from baldvae_pl.geometry.space import Space, points, some_of
from baldvae_pl.selection import Candidates, Selection

MOST_POINTS = 5_000
"""The graph of neighbours is that of so many images of U at random, and bounds memory."""

PURITY = 0.95
"""The radius of ``None``: so large a share of balls lies within one cluster."""


class ProbCover(Selection):
    """Again and again the image whose ball holds the most images that no other ball holds yet.

    ProbCover (Yehuda et al. 2022, "Active Learning Through a Covering Lens", NeurIPS), for the
    first labels and while labels are few: no prediction is looked at. Balls of labelled images
    cover too. Chosen are images among 5,000 of U at random, which stand for all to be covered.

    Args:
        radius: Of a ball, in the units of the space. Null: as the paper has it, the largest one
            with which 95 % of all balls lie within one cluster, with k-means clusters for classes.
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
        radius = self.radius or pure_radius(points_N_D, candidates.num_classes, generator)
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


def pure_radius(points_N_D: Tensor, clusters: int, generator: torch.Generator) -> float:
    """Return the largest radius with which `PURITY` of the balls lie within one cluster.

    That is the quantile of the distances of points to the nearest point of another cluster. If no
    cluster but one has points, it is the largest distance to the mean.
    """
    cluster_N = k_means(points_N_D, max(2, clusters), generator)
    foreign = []
    for cluster in cluster_N.unique():
        inside, outside = points_N_D[cluster_N == cluster], points_N_D[cluster_N != cluster]
        if len(outside):
            foreign.append(pairwise_distances_argmin_min(inside.numpy(), outside.numpy())[1])
    if not foreign:
        return float((points_N_D - points_N_D.mean(0)).norm(dim=1).max()) or 1.0
    return float(np.quantile(np.concatenate(foreign), 1 - PURITY, method="lower"))
