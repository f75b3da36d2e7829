"""Spectral clusters against pools whose clusters are known."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from torch import Tensor

from baldvae_pl.geometry import spectral
from baldvae_pl.geometry.graph import neighbour_graph
from baldvae_pl.geometry.spectral import SpectralTypical, in_turn, spectral_embedding
from baldvae_pl.pool import Pool
from baldvae_pl.selection import Candidates


def rings(count: int, seed: int = 0) -> Tensor:
    """Two rings around one centre, which no k-means of the plane tells apart; the inner first."""
    generator = torch.Generator().manual_seed(seed)
    angles = torch.rand(2 * count, generator=generator) * 2 * torch.pi
    radii = torch.tensor([1.0, 5.0]).repeat_interleave(count)
    return radii[:, None] * torch.stack([angles.cos(), angles.sin()], 1)


def candidates(z: Tensor, count: int, labelled: Any = (), seed: int = 0) -> Candidates:
    pool = Pool(len(z), (1, 1, 1))
    bought = torch.tensor(labelled, dtype=torch.long)
    pool.acquire(bought, torch.zeros_like(bought), 0)
    return Candidates(
        priorities_N=torch.zeros(len(z)),
        labelled=pool.labelled,
        query_size=count,
        highest=pool.highest_unlabelled,
        map=lambda function, indices: function(z[indices]),
        generator=torch.Generator().manual_seed(seed),
    )


def test_the_embedding_spans_the_eigenvectors_of_the_normalised_laplacian() -> None:
    graph = neighbour_graph(torch.randn(60, 2, generator=torch.Generator().manual_seed(1)), 20)
    root = np.diag(graph.sum(1) ** -0.5)
    values, vectors = np.linalg.eigh(np.eye(60) - root @ graph.toarray() @ root)
    assert values[4] - values[3] > 1e-3  # else the span of the first four is not one
    found = spectral_embedding(graph, 4)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    lengths = np.linalg.norm(vectors[:, :4], axis=1, keepdims=True)
    assert subspace_angles(found * lengths, vectors[:, :4]).max() < 0.02


def test_in_turn_takes_the_most_typical_of_each_cluster_and_those_with_labels_later() -> None:
    # Of the first two images, which have labels, both are in cluster 1.
    cluster_N = np.array([1, 1, 0, 0, 1, 1, 1, 2, 2, 2])
    typical_N = np.array([9, 9, 1, 2, 3, 5, 4, 6, 8, 7])
    assert in_turn(cluster_N, typical_N, labels=2).tolist() == [8, 3, 9, 2, 5, 7, 6, 4]


@pytest.mark.parametrize("seed", range(3))
def test_two_rings_have_a_label_each(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "COORDINATES", 2)
    z = rings(150, seed)
    chosen = SpectralTypical("images")(candidates(z, 2, seed=seed))
    assert (chosen < 150).sum() == 1


def test_what_has_no_label_yet_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "COORDINATES", 2)
    z = rings(150)
    chosen = SpectralTypical("images")(candidates(z, 1, labelled=[3]))
    assert chosen.item() >= 150


@settings(deadline=None, max_examples=25)
@given(
    size=st.integers(8, 40),
    count=st.integers(1, 12),
    labelled=st.sets(st.integers(0, 7), max_size=6),
    seed=st.integers(0, 99),
)
def test_it_buys_so_many_of_u_and_again_the_same(
    size: int, count: int, labelled: set[int], seed: int
) -> None:
    z = torch.randn(size, 3, generator=torch.Generator().manual_seed(seed))
    one, again = (
        SpectralTypical("images")(candidates(z, count, sorted(labelled), seed)) for _ in range(2)
    )
    assert torch.equal(one, again)
    assert len(set(one.tolist())) == len(one) == min(count, size - len(labelled))
    assert not labelled & set(one.tolist())


def test_of_a_large_pool_a_part_is_clustered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "MOST_IMAGES", 100)
    z, seen = rings(150), []
    among = candidates(z, 4, labelled=[0, 200])
    looked = Candidates(**{**vars(among), "map": lambda f, i: (seen.append(len(i)), f(z[i]))[1]})
    assert len(SpectralTypical("images")(looked)) == 4
    assert seen == [102]
