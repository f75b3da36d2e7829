"""Selections on points against brute force, and what holds for all of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs
from torch import Tensor, nn

from baldvae_pl import BADGE, Candidates, ClusterMargin, KCenter, ProbCover, Selection, Typical
from baldvae_pl.errors import SettingError
from baldvae_pl.geometry import badge, cover, diverse, typical
from baldvae_pl.geometry.clusters import k_means
from baldvae_pl.geometry.cover import fitting_radius
from baldvae_pl.pool import Pool
from baldvae_pl.posterior import eval_mode


def candidates(
    points_N_D: Tensor,
    count: int,
    labelled: Sequence[int] = (),
    seed: int = 0,
    batch: int = 1000,
    **other: Any,
) -> Candidates:
    """The points are the images, a pool of them with a purchase of so many to come."""
    pool = Pool(len(points_N_D), (points_N_D.shape[1],), torch.float32)
    some = torch.tensor(labelled, dtype=torch.long)
    pool.acquire(some, torch.zeros_like(some), 0)
    priorities_N = other.pop("priorities_N", torch.zeros(len(points_N_D)))
    return Candidates(
        priorities_N=priorities_N,
        labelled=pool.labelled,
        query_size=count,
        highest=pool.highest_unlabelled,
        map=lambda look, indices: torch.cat([look(x) for x in points_N_D[indices].split(batch)]),
        generator=torch.Generator().manual_seed(seed),
        **other,
    )


def random_points(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(features: int) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(features, 7), nn.ReLU(), nn.Dropout(0.5), nn.Linear(7, 4))


EVERY: list[Selection] = [
    Typical(space="images"),
    ProbCover(space="images"),
    KCenter(space="images"),
    ClusterMargin(space="images", candidates=12),
    BADGE(),
]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 999),
    size=st.integers(1, 40),
    count=st.integers(1, 45),
    share=st.floats(0, 0.9),
    alike=st.booleans(),
)
@pytest.mark.parametrize("choose", EVERY, ids=lambda each: type(each).__name__)
def test_they_choose_k_images_of_u_and_the_same_again(
    choose: Selection, seed: int, size: int, count: int, share: float, alike: bool
) -> None:
    points_N_D = random_points(size, 3, seed=seed)
    points_N_D = points_N_D.sign() if alike else points_N_D  # at most eight different ones
    labelled = range(0, int(share * size))
    other = {"priorities_N": points_N_D[:, 0].exp(), "network": network(3)}
    chosen, again = (
        choose(candidates(points_N_D, count, labelled, seed, batch, **other))
        for batch in (1000, 1000)
    )
    assert chosen.tolist() == again.tolist()
    assert len(chosen) == min(count, size - len(labelled))
    assert len(chosen.unique()) == len(chosen)
    assert not set(chosen.tolist()) & set(labelled)


@pytest.mark.parametrize("choose", EVERY, ids=lambda each: type(each).__name__)
def test_they_do_not_depend_on_the_size_of_batches(choose: Selection) -> None:
    points_N_D = random_points(60, 3)
    priorities_N = points_N_D[:, 0].exp()
    few, many = (
        choose(
            candidates(
                points_N_D,
                9,
                [0, 5, 7],
                batch=batch,
                priorities_N=priorities_N,
                network=network(3),
            )
        )
        for batch in (4, 1000)
    )
    assert few.tolist() == many.tolist()


@pytest.mark.parametrize(
    ("choose", "module"), [(Typical, typical), (KCenter, diverse), (ProbCover, cover)]
)
def test_of_a_large_pool_a_random_part_is_looked_at(
    choose: Any, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_POINTS", 20)
    looked: list[int] = []
    points_N_D = random_points(200, 3)
    among = candidates(points_N_D, 5, [3])
    watched = among.map

    def watching(look: Any, indices: Tensor) -> Tensor:
        looked.extend(indices.tolist())
        return watched(look, indices)

    object.__setattr__(among, "map", watching)
    assert len(choose(space="images")(among)) == 5
    assert sorted(looked)[-1] > 100
    assert len(looked) == 21
    assert 3 in looked


# Typical


def test_typical_takes_the_middle_of_each_blob_the_largest_first() -> None:
    sizes, middles = [40, 30, 20], np.array([[0.0, 0], [50, 0], [0, 50]])
    arrays, blob = make_blobs(sizes, centers=middles, random_state=0)
    points_N_D, blob_N = torch.tensor(arrays, dtype=torch.float32), torch.tensor(blob)
    chosen = Typical(space="images", max_clusters=3)(candidates(points_N_D, 3))
    assert blob_N[chosen].tolist() == [0, 1, 2]
    for number, size in enumerate(sizes):
        inside = (blob_N == number).nonzero().flatten()
        distances = torch.cdist(points_N_D[inside], points_N_D[inside])
        nearest = distances.sort(1).values[:, 1 : 1 + min(20, size // 2)].mean(1)
        assert chosen[number] == inside[nearest.argmin()]


def test_typical_goes_first_where_no_label_is_and_last_to_what_is_odd() -> None:
    sizes, middles = [40, 30, 20, 3], np.array([[0.0, 0], [50, 0], [0, 50], [500, 500]])
    arrays, blob = make_blobs(sizes, centers=middles, random_state=0)
    points_N_D, blob_N = torch.tensor(arrays, dtype=torch.float32), torch.tensor(blob)
    in_largest = [int((blob_N == 0).nonzero()[0])]
    choose = Typical(space="images", max_clusters=4)
    chosen = choose(candidates(points_N_D, 6, in_largest))
    # The largest has a label; with one in each they come round again in the same order.
    assert blob_N[chosen].tolist() == [1, 2, 0, 1, 2, 0]
    everything = choose(candidates(points_N_D, 92, in_largest))
    assert blob_N[everything].tolist().index(3) == 89  # the three that are odd


# KCenter


@pytest.mark.parametrize("labelled", [[], [4, 17]])
@pytest.mark.parametrize("seed", range(3))
def test_k_center_is_the_farthest_first(seed: int, labelled: list[int]) -> None:
    points_N_D = random_points(50, 3, seed=seed).double()
    distances_N_N = torch.cdist(points_N_D, points_N_D)
    chosen, expected = KCenter(space="images")(candidates(points_N_D.float(), 8, labelled)), []
    if not labelled:
        expected = [int((points_N_D - points_N_D.mean(0)).norm(dim=1).argmin())]
    while len(expected) < 8:
        to_nearest_N = distances_N_N[[*labelled, *expected]].min(0).values
        expected.append(int(to_nearest_N.argmax()))
    assert chosen.tolist() == expected


# ProbCover


@pytest.mark.parametrize("labelled", [[], [4, 17]])
@pytest.mark.parametrize("seed", range(3))
def test_prob_cover_covers_most_with_each_ball(seed: int, labelled: list[int]) -> None:
    points_N_D, radius = random_points(60, 2, seed=seed), 0.7
    covers_N_N = torch.cdist(points_N_D, points_N_D) <= radius
    covered_N = covers_N_N[labelled].any(0)
    free_N = torch.ones(60, dtype=torch.bool)
    free_N[labelled] = False
    choose = ProbCover(radius=radius, space="images")
    for index in choose(candidates(points_N_D, 6, labelled)).tolist():
        gains_N = (covers_N_N & ~covered_N & free_N).sum(1) * free_N
        assert gains_N[index] == gains_N.max() > 0
        covered_N |= covers_N_N[index]


def test_prob_cover_begins_anew_when_all_is_covered() -> None:
    points_N_D = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1]])
    chosen = ProbCover(radius=0.15, space="images")(candidates(points_N_D, 4)).tolist()
    assert chosen[0] == 1  # covers three
    assert chosen[1] in (3, 4)  # all is covered
    assert chosen[2] in (0, 2, 3, 4)
    assert len(set(chosen)) == 4


def test_the_radius_is_that_of_balls_that_hold_half() -> None:
    points_N_D = random_points(800, 3)
    radius = fitting_radius(points_N_D, 10, torch.Generator())
    held = (torch.cdist(points_N_D, points_N_D) <= radius).sum(1) - 1
    assert held.float().mean().item() * 10 == pytest.approx(800 / 2, rel=0.01)


# ClusterMargin


def test_cluster_margin_buys_the_best_of_each_cluster_of_the_best() -> None:
    middles = np.array([[0.0, 0], [50, 0], [0, 50], [90, 90]])
    arrays, blob = make_blobs([10, 10, 10, 10], centers=middles, random_state=0)
    priorities_N = torch.rand(40, generator=torch.Generator().manual_seed(0))
    blob_N = torch.tensor(blob)
    priorities_N[blob_N == 3] -= 2  # these are not among the best
    among = candidates(torch.tensor(arrays).float(), 3, priorities_N=priorities_N)
    chosen = ClusterMargin(candidates=30, space="images")(among)
    best = [int(priorities_N.where(blob_N == b, -9).argmax()) for b in range(3)]
    assert chosen.tolist() == sorted(best, key=lambda i: -priorities_N[i])


def test_cluster_margin_among_k_is_top_k() -> None:
    priorities_N = torch.rand(40, generator=torch.Generator().manual_seed(0))
    among = candidates(random_points(40, 2), 7, [3], priorities_N=priorities_N)
    chosen = ClusterMargin(candidates=1, space="images")(among)
    assert chosen.tolist() == among.highest(priorities_N, 7).tolist()


# BADGE


def test_badge_draws_by_the_distances_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients by autograd, of the loss whose label is the prediction."""
    points_N_D, model = random_points(30, 3), network(3)
    last: Any = model[-1]
    gradients = []
    with eval_mode(model):
        for point in points_N_D:
            logits = model(point[None])
            loss = nn.functional.cross_entropy(logits, logits.argmax(1))
            gradients.append(torch.autograd.grad(loss, last.weight)[0].flatten())
    gradients_N_G = torch.stack(gradients).double()
    squares_N_N = torch.cdist(gradients_N_G, gradients_N_G).square()
    labelled = [2, 9]
    free = torch.tensor([i for i in range(30) if i not in labelled])
    weights: list[Tensor] = []
    searchsorted = torch.searchsorted

    def spy(below_N: Tensor, place: Tensor, right: bool) -> Tensor:
        weights.append(below_N.diff(prepend=below_N.new_zeros(1)))
        return searchsorted(below_N, place, right=right)

    monkeypatch.setattr(badge.torch, "searchsorted", spy)
    with torch.no_grad():
        chosen = BADGE()(candidates(points_N_D, 6, labelled, network=model)).tolist()
    assert chosen[0] == free[gradients_N_G[free].norm(dim=1).argmax()]
    assert len(weights) == 5
    for number, weights_N in enumerate(weights, 1):
        expected = squares_N_N[free][:, chosen[:number]].min(1).values
        assert weights_N.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert model.training  # as it was


def test_badge_says_what_it_needs() -> None:
    points_N_D = random_points(9, 3)
    assert BADGE.needs_network  # so that it chooses no first labels
    with pytest.raises(SettingError, match=r"^--acquisition\.selection: .* Flatten has none"):
        BADGE()(candidates(points_N_D, 2, network=nn.Flatten()))


def test_clusters_of_many_points_are_those_of_the_blobs() -> None:
    arrays, blob = make_blobs(12_000, centers=[[0, 0], [90, 0], [0, 90]], random_state=0)
    points_N_D = torch.tensor(arrays, dtype=torch.float32)
    cluster_N, again_N = (
        k_means(points_N_D, 3, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(cluster_N, again_N)
    for number in range(3):
        assert len(cluster_N[torch.tensor(blob) == number].unique()) == 1
    assert len(cluster_N.unique()) == 3
