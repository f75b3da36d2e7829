"""The graph of nearest neighbours against its definition, pair by pair."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baldvae_pl.geometry import graph
from baldvae_pl.geometry.graph import graph_of, neighbour_graph


def points(count: int, dimensions: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def pair_by_pair(points_N_D: Tensor, neighbours: int) -> np.ndarray:
    count = len(points_N_D)
    one_way = np.zeros((count, count))
    for i in range(count):
        distance = [math.dist(points_N_D[i].tolist(), other) for other in points_N_D.tolist()]
        nearest = sorted((j for j in range(count) if j != i), key=lambda j: distance[j])
        nearest = nearest[:neighbours]
        for j in nearest:
            one_way[i, j] = math.exp(-4 * (distance[j] / distance[nearest[-1]]) ** 2)
    return (one_way + one_way.T) / 2


@pytest.mark.parametrize("dimensions", [1, 3, graph.TREE_UP_TO + 1])
@pytest.mark.parametrize("neighbours", [1, 10, 99])
def test_weights_are_those_of_the_definition(dimensions: int, neighbours: int) -> None:
    z = points(40, dimensions)
    expected = pair_by_pair(z, min(neighbours, 39))
    assert neighbour_graph(z, neighbours).toarray() == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(2, 30),
    dimensions=st.sampled_from([2, graph.TREE_UP_TO + 1]),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_it_is_symmetric_without_loops_and_knows_no_scale(
    count: int, dimensions: int, seed: int, scale: float
) -> None:
    z = points(count, dimensions, seed)
    found = neighbour_graph(z, 5).toarray()
    assert (found == found.T).all()
    assert (found.diagonal() == 0).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert (found > 0).sum(1).min() >= min(5, count - 1)
    assert neighbour_graph(scale * z, 5).toarray() == pytest.approx(found, abs=1e-4)


def test_copies_of_one_image_are_joined_by_one() -> None:
    z = torch.cat([torch.zeros(12, 2), torch.ones(12, 2)])
    weights = neighbour_graph(z, 3).toarray()
    assert set(np.unique(weights)) <= {0.0, 0.5, 1.0}
    assert (weights[:12, 12:] == 0).all()


def test_a_graph_is_made_once_while_the_points_stay_the_same() -> None:
    z = points(50, 4)
    first = graph_of(z)
    assert graph_of(z.clone()) is first
    z[7] += 1
    assert graph_of(z) is not first
    assert (graph_of(z) != neighbour_graph(z)).nnz == 0
