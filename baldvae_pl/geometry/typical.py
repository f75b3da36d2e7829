"""Typical images of clusters that have no label yet: TypiClust."""

from collections.abc import Iterator

import torch
from jsonargparse.typing import PositiveInt
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from baldvae_pl.geometry.clusters import k_means
from baldvae_pl.geometry.space import Space, points, some_of
from baldvae_pl.selection import Candidates, Selection

MOST_POINTS = 100_000
"""So many images of U are clustered; of more, as many at random."""

NEIGHBOURS = 20
"""An image is typical if so many others of its cluster are near."""

LEAST_CLUSTERS = 25
"""Classes share clusters if these are fewer: the first 10 labels then hold fewer of them."""

TOO_SMALL = 5
"""A cluster of so few images is odd, and comes last."""


class Typical(Selection):
    """One typical image of each cluster that has no label yet, the largest cluster first.

    TypiClust (Hacohen et al. 2022, "Active Learning on a Budget: Opposite Strategies Suit High and
    Low Budgets", ICML), for the first labels and while labels are few: no prediction is looked at.
    k-means makes ``|L| + K`` clusters of L and U, but at least 25. Again and again the cluster with
    the fewest labels is next, of those the largest; it gives the image of U with the smallest mean
    distance to its nearest neighbours in the cluster, 20, or half of a small cluster.

    Args:
        space: In which images are near to each other: ``latents`` of the VAE, ``features`` of the
            trained network, which there are not before round 0, or ``images`` themselves, the
            space for vectors of a frozen network.
        max_clusters: At most so many clusters are made.
    """

    ranks = False

    def __init__(self, space: Space = "latents", max_clusters: PositiveInt = 500) -> None:
        self.space = space
        self.max_clusters = max_clusters
        self.needs_vae = space == "latents"

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices."""
        generator, labelled = candidates.generator, candidates.labelled
        unlabelled = some_of(
            candidates.unlabelled, max(MOST_POINTS, candidates.query_size), generator
        )
        indices = torch.cat([labelled, unlabelled])
        points_N_D = points(candidates, indices, self.space)
        wanted = max(len(labelled) + candidates.query_size, LEAST_CLUSTERS)
        clusters = min(wanted, self.max_clusters)
        cluster_N = k_means(points_N_D, clusters, generator)
        sizes = cluster_N.bincount().tolist()
        labels = cluster_N[: len(labelled)].bincount(minlength=len(sizes)).tolist()
        places: dict[int, Iterator[int]] = {}
        chosen: list[int] = []
        has_more = {cluster for cluster, size in enumerate(sizes) if size > labels[cluster]}
        left = [size - has for size, has in zip(sizes, labels, strict=True)]
        for _ in range(min(candidates.query_size, len(unlabelled))):
            cluster = min(has_more, key=lambda c: (sizes[c] <= TOO_SMALL, labels[c], -sizes[c], c))
            if cluster not in places:
                members = (cluster_N == cluster).nonzero().flatten()
                ranked = members[typicality(points_N_D[members]).argsort(stable=True)]
                places[cluster] = iter(ranked[ranked >= len(labelled)].tolist())
            chosen.append(next(places[cluster]))
            labels[cluster] += 1
            left[cluster] -= 1
            if not left[cluster]:
                has_more.remove(cluster)
        return indices[chosen]


def typicality(points_N_D: Tensor) -> Tensor:
    """Return the mean distance of each point of a cluster to its neighbours; small is typical."""
    neighbours = min(NEIGHBOURS, len(points_N_D) // 2)
    if not neighbours:
        return torch.zeros(len(points_N_D))
    nearest = NearestNeighbors(n_neighbors=neighbours).fit(points_N_D.numpy())
    distances, _ = nearest.kneighbors()
    return torch.from_numpy(distances).mean(1)
