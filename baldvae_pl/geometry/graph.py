"""The graph of nearest neighbours of the pool: what is alike is joined."""

from hashlib import blake2b

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

TREE_UP_TO = 8
"""Dimensions up to which a k-d tree is faster than all pairs, of points that lie in clusters."""


def neighbour_graph(points_N_D: Tensor, neighbours: int = 10) -> sparse.csr_array:
    """Return the symmetric weights of the graph of nearest neighbours, shape (N, N), sparse.

    Image i and each of its k nearest j are joined by exp(-4 ‖z_i - z_j‖² / d_i²), d_i being the
    distance from i to the k-th, and (W + Wᵀ) / 2 is returned: weights are at most 1, and scale and
    density of the points make no difference (Calder et al. 2020, "Poisson Learning", ICML; the
    local scale is that of Zelnik-Manor and Perona 2004, "Self-Tuning Spectral Clustering").

    Neighbours are exact: by a k-d tree up to ``TREE_UP_TO`` dimensions, else by all pairs, a block
    at a time. Memory is that of the points and of the k neighbours, whatever N is.

    Args:
        points_N_D: Float points, at least two.
        neighbours: k; all others, if there are fewer.
    """
    count = len(points_N_D)
    algorithm = "kd_tree" if points_N_D.shape[1] <= TREE_UP_TO else "brute"
    search = NearestNeighbors(n_neighbors=min(neighbours, count - 1), algorithm=algorithm)
    distances_N_K, nearest_N_K = search.fit(points_N_D.numpy()).kneighbors()
    # Of many copies of one image all distances are 0, and all weights 1.
    scale_N_1 = np.maximum(distances_N_K[:, -1:], np.finfo(np.float32).tiny)
    weights_N_K = np.exp(-4 * (distances_N_K / scale_N_1) ** 2, dtype=np.float64)
    starts = np.arange(0, nearest_N_K.size + 1, nearest_N_K.shape[1])
    one_way = sparse.csr_array(
        (weights_N_K.ravel(), nearest_N_K.ravel(), starts), shape=(count, count)
    )
    return ((one_way + one_way.T) / 2).tocsr()


def graph_of(points_N_D: Tensor) -> sparse.csr_array:
    """Return `neighbour_graph` of these points, which is made again only when they change.

    The latents of a frozen VAE are the same in every round, so one graph serves a whole run, and
    all that ask for it.
    """
    points = np.ascontiguousarray(points_N_D.numpy())
    key = blake2b(points.data, digest_size=16).hexdigest() + str(points.shape)
    if key not in _newest:
        _newest.clear()
        _newest[key] = neighbour_graph(points_N_D)
    return _newest[key]


_newest: dict[str, sparse.csr_array] = {}
