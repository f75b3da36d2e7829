"""Where no label has been seen yet, on the graph of the pool."""

import numpy as np
import torch
from torch import Tensor

from baldvae_pl.geometry.graph import graph_of
from baldvae_pl.geometry.poisson import flow, poisson
from baldvae_pl.geometry.space import Space, points
from baldvae_pl.geometry.spectral import SpectralTypical
from baldvae_pl.selection import Candidates, Selection

LEAST_REACHED = 50
"""One image of so many is unexplored: among those with the smallest norm."""


class Unexplored(Selection):
    """Images that the labels hardly reach, one region after the other, while labels are few.

    The norm of the solution of Poisson learning is small where no class has been seen (Miller and
    Calder 2022, "Poisson Reweighted Laplacian Uncertainty Sampling for Graph-based Active
    Learning"). The lowest of all are odd images; so of the 2 % of U with the smallest norm the one
    with the highest degree is bought, which then is a source of its own for the next choice. The
    first labels are those of `SpectralTypical`.

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
        if not len(candidates.labelled):
            return SpectralTypical(self.space)(candidates)
        size = len(candidates.priorities_N)
        graph = graph_of(points(candidates, torch.arange(size), self.space))
        labels_N = torch.full((size,), -1)
        labels_N[candidates.labelled] = candidates.labels
        scores_N_C = poisson(graph, labels_N, int(candidates.labels.max()) + 1)
        reached_N = scores_N_C.double().square().sum(1).numpy()
        degrees_N = graph.sum(1)
        open_U = candidates.highest(torch.zeros(size), size).numpy()
        chosen: list[int] = []
        for _ in range(min(candidates.query_size, len(open_U))):
            order_U = reached_N[open_U].argsort(kind="stable")
            low = open_U[order_U[: -(-len(open_U) // LEAST_REACHED)]]
            chosen.append(int(low[degrees_N[low].argmax()]))
            open_U = open_U[open_U != chosen[-1]]
            sources = [*candidates.labelled.tolist(), *chosen]
            source_N = np.zeros(size)
            source_N[sources] = -1 / len(sources)  # as in `poisson`, where each class has a column
            source_N[chosen[-1]] += 1
            reached_N += np.square(flow(graph, source_N[:, None])[:, 0])
        return torch.tensor(chosen)
