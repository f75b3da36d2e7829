"""Clusters of points, the same on every run and every process."""

import warnings

import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

FEW_POINTS = 10_000
"""From here on k-means looks at a batch of points at a time."""


def k_means(points_N_D: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Return the cluster of each point by k-means.

    Args:
        points_N_D: Float points on the CPU.
        clusters: Their number; as many as there are points if these are fewer.
        generator: CPU generator that the first centres are drawn from.

    Returns:
        From 0 to ``clusters`` - 1, shape (N,). A cluster may be empty if points are alike.
    """
    kind = KMeans if len(points_N_D) <= FEW_POINTS else MiniBatchKMeans
    seed = int(torch.randint(2**31, (), generator=generator))
    fitted = kind(min(clusters, len(points_N_D)), n_init=3, random_state=seed)
    # Several threads add up in an order that differs from run to run.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of points that are alike
        return torch.from_numpy(fitted.fit_predict(points_N_D.numpy())).long()
