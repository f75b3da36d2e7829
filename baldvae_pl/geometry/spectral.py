"""Clusters of the graph of the pool, and the most typical image of each."""

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans
from torch import Tensor

from baldvae_pl.geometry.graph import graph_of
from baldvae_pl.geometry.space import Space, points
from baldvae_pl.selection import Candidates, Selection

COORDINATES = 20
"""Dimensions of the spectral embedding."""


def spectral_embedding(graph: sparse.csr_array, coordinates: int = COORDINATES) -> np.ndarray:
    """Return points on the unit sphere, shape (N, coordinates), near where well joined.

    They are the eigenvectors of the smallest eigenvalues of I - D^-1/2 W D^-1/2, each image's row
    divided by its norm (Ng, Jordan and Weiss 2001, "On Spectral Clustering", NeurIPS).

    Args:
        graph: Of `neighbour_graph`.
        coordinates: Their number, fewer if there are hardly as many images.
    """
    root_N = sparse.diags_array(graph.sum(1) ** -0.5)
    count = graph.shape[0]
    # Any start serves, but for ones, which may be orthogonal to an eigenvector by symmetry.
    start_N = np.random.default_rng(0).random(count)
    wanted = min(coordinates, count - 1)
    _, vectors_N_E = eigsh(root_N @ graph @ root_N, wanted, which="LA", v0=start_N, tol=1e-3)
    return vectors_N_E / np.maximum(np.linalg.norm(vectors_N_E, axis=1, keepdims=True), 1e-12)


class SpectralTypical(Selection):
    """One typical image of each cluster of the neighbour graph: first labels that cover the classes.

    The pool is cut into as many clusters as there will be labels, by k-means on the spectral
    embedding of its graph. The clusters with the fewest labels come first, of these the largest,
    and the image bought is that of U with the highest degree: its neighbours are near, and it is
    a neighbour of many. In latents, k-means alone cuts large classes and joins small ones; a graph
    follows their shape.

    Args:
        space: Where images are near to each other: ``latents`` of the VAE, ``images`` where W is
            vectors, or ``features`` of the trained network.
    """

    ranks = False

    def __init__(self, space: Space = "latents") -> None:
        self.space: Space = space
        self.needs_vae = space == "latents"

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices, of the cluster with the fewest labels first."""
        everyone = torch.arange(len(candidates.priorities_N))
        graph = graph_of(points(candidates, everyone, self.space))
        count = min(len(candidates.labelled) + candidates.query_size, len(everyone))
        seed = int(torch.randint(2**31, (), generator=candidates.generator))
        means = KMeans(count, n_init=1, random_state=seed)
        cluster_N = means.fit_predict(spectral_embedding(graph))
        return next_of_each(cluster_N, graph.sum(1), candidates)


def next_of_each(cluster_N: np.ndarray, typical_N: np.ndarray, candidates: Candidates) -> Tensor:
    """Return the most typical of U in each cluster, then the second, as long as any are to be bought.

    Each label that a cluster has already puts it one turn back; of clusters with the same turn the
    largest comes first.
    """
    labels_K = np.bincount(cluster_N[candidates.labelled], minlength=cluster_N.max() + 1)
    size_K = np.bincount(cluster_N)
    open_U = candidates.highest(torch.zeros(len(cluster_N)), len(cluster_N)).numpy()
    open_U = open_U[np.lexsort((-typical_N[open_U], cluster_N[open_U]))]
    cluster_U = cluster_N[open_U]
    place_U = np.arange(len(open_U)) - np.searchsorted(cluster_U, cluster_U)
    order_U = np.lexsort((-size_K[cluster_U], place_U + labels_K[cluster_U]))
    return torch.from_numpy(open_U[order_U[: candidates.query_size]])
