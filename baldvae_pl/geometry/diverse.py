"""Images that are far from each other: among the uncertain ones, or from all labelled ones."""

import torch
from jsonargparse.typing import PositiveInt
from sklearn.metrics import pairwise_distances_argmin_min
from torch import Tensor

from baldvae_pl.geometry.clusters import k_means
from baldvae_pl.geometry.space import Space, points, some_of
from baldvae_pl.pool import class_balanced_order
from baldvae_pl.selection import Candidates, Selection

MOST_POINTS = 100_000
"""`KCenter` chooses among so many images of U; of more, among as many at random."""


class ClusterMargin(Selection):
    """Diverse images among the most uncertain: the best of each of K clusters of the best.

    In the spirit of Cluster-Margin (Citovsky et al. 2021, "Batch Active Learning at Scale",
    NeurIPS), which clusters the whole pool once, and with any acquisition function. Here k-means
    makes K clusters of the images with the highest scores, and the highest score of each is bought.

    Args:
        candidates: How many images with the highest scores to choose among; K if that is more.
        space: In which images are near to each other: ``latents`` of the VAE, ``features`` of the
            trained network, or ``images`` themselves, the space for vectors of a frozen network.
    """

    def __init__(self, candidates: PositiveInt = 300, space: Space = "latents") -> None:
        self.candidates = candidates
        self.space = space
        self.needs_vae = space == "latents"

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices, the highest score first."""
        count = candidates.query_size
        best = candidates.highest(candidates.priorities_N, max(self.candidates, count))
        cluster_N = k_means(points(candidates, best, self.space), count, candidates.generator)
        # The best of each cluster, then the second best, if alike images make fewer clusters.
        return best[class_balanced_order(torch.arange(len(best)), cluster_N)[:count]]


class KCenter(Selection):
    """Again and again the image that is farthest from all that are labelled or chosen.

    The greedy core-set (Sener and Savarese 2018, "Active Learning for Convolutional Neural
    Networks: A Core-Set Approach", ICLR). Without labelled images it begins with the one nearest to
    the mean of all. No prediction is looked at.

    Args:
        space: In which images are far from each other: ``latents`` of the VAE, ``features`` of the
            trained network, which there are not before round 0, or ``images`` themselves, the
            space for vectors of a frozen network.
    """

    ranks = False

    def __init__(self, space: Space = "latents") -> None:
        self.space = space
        self.needs_vae = space == "latents"

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices."""
        count = candidates.query_size
        unlabelled = some_of(candidates.unlabelled, max(MOST_POINTS, count), candidates.generator)
        points_N_D = points(candidates, unlabelled, self.space)
        if len(candidates.labelled):
            labelled_L_D = points(candidates, candidates.labelled, self.space)
            _, distances = pairwise_distances_argmin_min(points_N_D.numpy(), labelled_L_D.numpy())
            nearest_N = torch.from_numpy(distances).float()
        else:
            nearest_N = -distances_to(points_N_D.mean(0), points_N_D)
        chosen: list[int] = []
        for _ in range(min(count, len(unlabelled))):
            chosen.append(int(nearest_N.argmax()))
            to_it_N = distances_to(points_N_D[chosen[-1]], points_N_D)
            first = len(chosen) == 1 and not len(candidates.labelled)
            nearest_N = to_it_N if first else nearest_N.minimum(to_it_N)
            nearest_N[chosen] = -torch.inf
        return unlabelled[chosen]


def distances_to(point_D: Tensor, points_N_D: Tensor) -> Tensor:
    """Return the distance of each point to one point."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(point_D[None], points_N_D, compute_mode=exact)[0]
