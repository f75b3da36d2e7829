"""What no label reaches is bought first."""

import pytest
import torch
from torch import Tensor

from baldvae_pl.geometry.graph import neighbour_graph
from baldvae_pl.geometry.unexplored import Unexplored
from baldvae_pl.pool import Pool
from baldvae_pl.selection import Candidates


def heaps(count: int, each: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.arange(count).repeat_interleave(each)
    return torch.randn(len(centres), 2, generator=generator) + centres[:, None]


def candidates(z: Tensor, count: int, labelled: list[int], labels: list[int]) -> Candidates:
    pool = Pool(len(z), (1, 1, 1))
    pool.acquire(torch.tensor(labelled).long(), torch.tensor(labels).long(), 0)
    return Candidates(
        priorities_N=torch.zeros(len(z)),
        labelled=pool.labelled,
        query_size=count,
        highest=pool.highest_unlabelled,
        map=lambda function, indices: function(z[indices]),
        generator=torch.Generator().manual_seed(0),
        labels=pool.labels[pool.labelled],
    )


def test_each_heap_without_a_label_gets_one_before_any_gets_two() -> None:
    z = heaps(5, 40)
    chosen = Unexplored("images")(candidates(z, 3, [10, 90], [0, 1]))
    assert sorted((chosen // 40).tolist()) == [1, 3, 4]


@pytest.mark.parametrize("count", [1, 7, 50])
def test_it_buys_so_many_of_u_and_again_the_same(count: int) -> None:
    z = heaps(2, 15)
    among = candidates(z, count, [3, 20, 29], [1, 0, 0])
    chosen = Unexplored("images")(among)
    assert torch.equal(chosen, Unexplored("images")(among))
    assert len(set(chosen.tolist())) == len(chosen) == min(count, 27)
    assert not {3, 20, 29} & set(chosen.tolist())


def test_the_first_labels_begin_in_the_densest_place_and_reach_each_heap() -> None:
    z = heaps(5, 40)
    chosen = Unexplored("images")(candidates(z, 5, [], []))
    assert sorted((chosen // 40).tolist()) == [0, 1, 2, 3, 4]
    assert chosen[0] == neighbour_graph(z).sum(1).argmax()


def test_on_one_piece_each_pick_is_far_from_all_before() -> None:
    """On a ring of points the second is opposite the first, and the next two between them."""
    angle = torch.arange(240) * (2 * torch.pi / 240)
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    chosen = Unexplored("images")(candidates(ring, 4, [], []))
    places = (chosen - chosen[0]).remainder(240).sort().values
    assert places.tolist() == pytest.approx([0, 60, 120, 180], abs=8)


def test_labels_of_one_class_alone_leave_the_other_heaps_unexplored() -> None:
    z = heaps(5, 40)
    chosen = Unexplored("images")(candidates(z, 3, [10, 90], [1, 1]))
    assert sorted((chosen // 40).tolist()) == [1, 3, 4]
