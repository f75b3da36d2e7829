"""Where no label has been seen yet, on the graph of the pool."""

import numpy as np
import torch
from torch import Tensor

from baldvae_pl.geometry.graph import graph_of
from baldvae_pl.geometry.poisson import flow, poisson
from baldvae_pl.geometry.space import Space, points, some_of
from baldvae_pl.selection import Candidates, Selection

MOST_IMAGES = 20_000
"""So many images of U are chosen among; of more, among as many at random."""

LEAST_REACHED = 50
"""One image of so many is unexplored: among those with the smallest norm."""


class Unexplored(Selection):
    """Images that no label reaches, one region after the other: for the first labels.

    What a label says spreads over the neighbour graph, and where little arrives no class has been
    seen (Miller and Calder 2022, "Poisson Reweighted Laplacian Uncertainty Sampling for Graph-based
    Active Learning"). The images that are reached least of all are odd ones; so of the 2 % of U
    that are reached least the one with the highest degree is bought, whose neighbours are near, and
    the next one where neither the labels nor it reach. The very first has the highest degree.

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
        known, most = candidates.labelled, max(MOST_IMAGES, candidates.query_size)
        some = some_of(candidates.unlabelled, most, candidates.generator)
        indices_N = torch.cat([known, some])
        graph = graph_of(points(candidates, indices_N, self.space))
        degrees_N = graph.sum(1)
        reached_N = np.zeros(len(indices_N))
        if len(known):
            labels_N = torch.full((len(indices_N),), -1)
            labels_N[: len(known)] = candidates.labels
            scores_N_C = poisson(graph, labels_N, int(candidates.labels.max()) + 1)
            reached_N = scores_N_C.double().square().sum(1).numpy()
        left_U = np.arange(len(known), len(indices_N))
        chosen: list[int] = []
        while len(chosen) < candidates.query_size and len(left_U):
            low_U = left_U
            if len(known) or chosen:
                order_U = reached_N[left_U].argsort(kind="stable")
                low_U = left_U[order_U[: -(-len(left_U) // LEAST_REACHED)]]
            newest = int(low_U[degrees_N[low_U].argmax()])
            chosen.append(newest)
            left_U = left_U[left_U != newest]
            # From it to all of the graph alike; what is lowest is the farthest from it.
            source_N = -degrees_N / degrees_N.sum()
            source_N[newest] += 1
            flow_N = flow(graph, source_N[:, None])[:, 0]
            reached_N += np.square(flow_N - flow_N.min())
        return indices_N[chosen]
