"""Poisson learning: few labels, spread over the graph of the pool."""

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import cg
from torch import Tensor

LEAK = 1e-6
"""What an image keeps of what reaches it, in shares of its degree: it makes the solution unique,
also where a part of the graph has no label, and is too little to be seen otherwise."""


def poisson(graph: sparse.csr_array, labels_N: Tensor, num_classes: int) -> Tensor:
    """Return scores_N_C, float32: an image's class is that of its highest score.

    Each label is a source of its class, less the mean of all labels, from which u flows through
    the graph: (L + leak D) u = Σ_j δ_j (y_j - ȳ), where D holds the degrees and L = D - W (Calder
    et al. 2020, "Poisson Learning", ICML). Unlike the harmonic solution of label propagation it
    does not become flat away from the labels when they are few. Scores sum to 0 over classes; they
    are 0 where no label reaches, and the farther from all labels the smaller their norm.

    Args:
        graph: Of `neighbour_graph`; it may have several parts.
        labels_N: Classes from 0, or -1 where none is known; one label at least.
        num_classes: C.
    """
    labels = labels_N.numpy()
    known = np.flatnonzero(labels >= 0)
    sources_N_C = np.zeros((len(labels), num_classes))
    sources_N_C[known, labels[known]] = 1
    sources_N_C[known] -= sources_N_C[known].mean(0)
    return torch.from_numpy(flow(graph, sources_N_C)).float()


def flow(graph: sparse.csr_array, sources_N_S: np.ndarray) -> np.ndarray:
    """Solve (L + leak D) u = source for each column, by conjugate gradients."""
    degrees_N = graph.sum(1)
    system = sparse.diags_array((1 + LEAK) * degrees_N) - graph
    inverse = sparse.diags_array(1 / degrees_N)
    columns = [cg(system, source_N, rtol=1e-5, M=inverse)[0] for source_N in sources_N_S.T]
    return np.stack(columns, 1)
