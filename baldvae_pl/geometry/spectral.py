"""Clusters of the graph of the pool, and the most typical image of each."""

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from baldvae_pl.geometry.graph import neighbour_graph
from baldvae_pl.geometry.space import Space, points
from baldvae_pl.selection import Candidates, Selection

MOST_IMAGES = 20_000
"""So many images of U are clustered; of more, as many at random."""

MOST_CLUSTERS = 500

COORDINATES = 20
"""Dimensions of the spectral embedding: of 10, 20 and 30 the purest clusters of MNIST."""


def spectral_embedding(graph: sparse.csr_array, coordinates: int) -> np.ndarray:
    """Return points on the unit sphere, shape (N, coordinates), near where well joined.

    They are the eigenvectors of the smallest eigenvalues of I - D^-1/2 W D^-1/2, each image's row
    divided by its norm (Ng, Jordan and Weiss 2001, "On Spectral Clustering", NeurIPS).

    Args:
        graph: Of `neighbour_graph`.
        coordinates: Their number, fewer if there are hardly as many images.
    """
    root_N = sparse.diags_array(graph.sum(1) ** -0.5)
    count = graph.shape[0]
    # To machine precision: each part of a graph that falls apart has an eigenvector of the same
    # eigenvalue, and a rougher solution would miss all but one.
    start_N = np.random.default_rng(0).random(count)
    wanted = min(coordinates, count - 1)
    _, vectors_N_E = eigsh(root_N @ graph @ root_N, wanted, which="LA", v0=start_N)
    norm_N_1: np.ndarray = np.linalg.norm(vectors_N_E, axis=1, keepdims=True)
    embedding_N_E: np.ndarray = vectors_N_E / np.maximum(norm_N_1, 1e-12)
    return embedding_N_E


class SpectralTypical(Selection):
    """One typical image of each cluster of the neighbour graph, so that labels cover the classes.

    Made for the first labels. There are as many clusters as there will be labels, by k-means on
    the spectral embedding of the graph of at most ``MOST_IMAGES`` images. The clusters with the
    fewest labels come first, of these the largest, and what is bought is the image of U with the
    highest degree: its neighbours are near, and it is a neighbour of many. In latents k-means alone
    cuts large classes and joins small ones; the graph follows their shape.

    Args:
        space: In which images are near to each other: ``latents`` of the VAE, ``features`` of the
            trained network, which there are not before round 0, or ``images`` themselves, the
            space for vectors of a frozen network.
    """

    ranks = False

    def __init__(self, space: Space = "latents") -> None:
        self.space: Space = space
        self.needs_vae = space == "latents"

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices, of the cluster with the fewest labels first."""
        size, labels = len(candidates.priorities_N), len(candidates.labelled)
        unlabelled = candidates.highest(torch.zeros(size), size)
        order = torch.randperm(len(unlabelled), generator=candidates.generator)
        some = unlabelled[order[: max(MOST_IMAGES, candidates.query_size)]]
        indices_N = torch.cat([candidates.labelled, some])
        if len(some) <= candidates.query_size:
            return some
        graph = neighbour_graph(points(candidates, indices_N, self.space))
        clusters = min(labels + candidates.query_size, MOST_CLUSTERS)
        seed = int(torch.randint(2**31, (), generator=candidates.generator))
        k_means = KMeans(clusters, n_init=10, random_state=seed)
        with threadpool_limits(1):  # several threads add up in an order of their own
            cluster_N = k_means.fit_predict(spectral_embedding(graph, COORDINATES))
        order_U = in_turn(cluster_N, graph.sum(1), labels)
        return indices_N[order_U[: candidates.query_size]]


def in_turn(cluster_N: np.ndarray, typical_N: np.ndarray, labels: int) -> np.ndarray:
    """Return the places of U in N: the most typical image of each cluster, then the second, ...

    Each label that a cluster has puts it one turn back; of clusters with the same turn the largest
    comes first.

    Args:
        cluster_N: Of the images, those of L first.
        typical_N: The higher the more typical.
        labels: Size of L.
    """
    size_K = np.bincount(cluster_N)
    labels_K = np.bincount(cluster_N[:labels], minlength=len(size_K))
    places_U = labels + np.lexsort((-typical_N[labels:], cluster_N[labels:]))
    cluster_U = cluster_N[places_U]
    place_U = np.arange(len(cluster_U)) - np.searchsorted(cluster_U, cluster_U)
    order_U = np.lexsort((cluster_U, -size_K[cluster_U], labels_K[cluster_U] + place_U))
    return places_U[order_U]
