"""Where no label has been seen yet, on the graph of the pool."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from baldvae_pl.geometry.graph import graph_of
from baldvae_pl.geometry.poisson import flow
from baldvae_pl.geometry.space import Space, points, some_of
from baldvae_pl.selection import Candidates, Selection

MOST_IMAGES = 20_000
"""So many images of U are chosen among; of more, among as many at random."""

LEAST_REACHED = 50
"""One image of so many is unexplored: among those with the smallest norm."""


class Unexplored(Selection):
    """Images that no label reaches, one region after the other: for the first labels.

    A label spreads over the neighbour graph, and where little arrives a class may not have been
    seen (after Miller and Calder 2022, "Poisson Reweighted Laplacian Uncertainty Sampling for
    Graph-based Active Learning"; which classes the labels are of makes no difference here). The
    images that are reached least of all are odd ones; so of the 2 % of U that are reached least the
    one with the highest degree is bought, whose neighbours are near, and the next one where neither
    the labels nor it reach. The very first has the highest degree.

    Args:
        space: In which images are near to each other: ``latents`` of the VAE, ``features`` of the
            trained network, or ``images`` themselves, the space for vectors of a frozen network.
    """

    ranks = False

    def __init__(self, space: Space = "latents") -> None:
        self.space: Space = space
        self.needs_vae = space == "latents"

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices."""
        most = max(MOST_IMAGES, candidates.query_size)
        some = some_of(candidates.unlabelled, most, candidates.generator)
        indices_N = torch.cat([candidates.labelled, some]).sort().values
        is_known_N = torch.isin(indices_N, candidates.labelled).numpy()
        graph = graph_of(points(candidates, indices_N, self.space))
        degrees_N = graph.sum(1)
        reached_N = np.zeros(len(indices_N))
        explored = bool(is_known_N.any())
        if explored:
            reached_N += reach(graph, is_known_N / is_known_N.sum())
        left_U = np.flatnonzero(~is_known_N)
        chosen: list[int] = []
        while len(chosen) < candidates.query_size and len(left_U):
            low_U = left_U
            if explored or chosen:
                order_U = reached_N[left_U].argsort(kind="stable")
                low_U = left_U[order_U[: -(-len(left_U) // LEAST_REACHED)]]
            newest = int(low_U[degrees_N[low_U].argmax()])
            chosen.append(newest)
            left_U = left_U[left_U != newest]
            source_N = np.zeros(len(indices_N))
            source_N[newest] = 1
            reached_N += reach(graph, source_N)
        return indices_N[chosen]


def reach(graph: sparse.csr_array, source_N: np.ndarray) -> np.ndarray:
    """Return how much of a source, 1 in all, reaches each image; 0 where it is the farthest away.

    What flows from it is taken up by all of the graph alike, in shares of degrees.
    """
    degrees_N = graph.sum(1)
    flow_N = flow(graph, (source_N - degrees_N / degrees_N.sum())[:, None])[:, 0]
    reached_N: np.ndarray = np.square(flow_N - flow_N.min())
    return reached_N
