"""Selections against the distributions and the joint information that they are defined by."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baldvae_pl import selection
from baldvae_pl.errors import SettingError
from baldvae_pl.pool import Pool
from baldvae_pl.selection import (
    BatchBALD,
    Candidates,
    Power,
    Random,
    RandomSubset,
    Softmax,
    Softrank,
    Stochastic,
    TopK,
)

SCORES = torch.tensor([0.3, 0.0, 0.6, 0.9, 0.1, 0.4])


def candidates(
    scores_N: Tensor, count: int, labelled: Sequence[int] = (), seed: int = 0, **other: Any
) -> Candidates:
    pool = Pool(len(scores_N), (1, 1, 1))
    pool.acquire(
        torch.tensor(labelled, dtype=torch.long), torch.zeros(len(labelled), dtype=torch.long), 0
    )
    log_probs_N_T_C = other.pop("log_probs", torch.empty(0))
    return Candidates(
        priorities_N=scores_N,
        labelled=pool.labelled,
        query_size=count,
        highest=pool.highest_unlabelled,
        map=lambda function, indices: function(indices),  # its images are their own indices
        generator=torch.Generator().manual_seed(seed),
        draws=lambda some: log_probs_N_T_C[some],
        **other,
    )


def random_log_probs(*shape: int, scale: float, seed: int) -> Tensor:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (scale * logits).log_softmax(-1)


def joint_information(log_probs_n_T_C: Tensor) -> float:
    """I(y_1 .. y_n; w) in nats, by going through all outcomes."""
    probs = log_probs_n_T_C.double().exp()
    images, draws, classes = probs.shape
    given_draw = torch.ones(1, draws, dtype=torch.double)
    for image in range(images):
        given_draw = (given_draw[:, None] * probs[image].T).flatten(0, 1)
    assert len(given_draw) == classes**images
    joint = torch.special.entr(given_draw.mean(1)).sum()
    return (joint - torch.special.entr(probs).sum((0, 2)).mean()).item()


def test_top_k_are_the_highest_of_the_unlabelled() -> None:
    assert TopK()(candidates(SCORES, 3, labelled=[3])).tolist() == [2, 5, 0]


def test_top_k_of_a_random_part_are_the_highest_of_that_part() -> None:
    scores = torch.randperm(200, generator=torch.Generator().manual_seed(1)).float()
    labelled = [int(scores.argmax())]
    bought = TopK(subset=50)(candidates(scores, 10, labelled))
    drawn = torch.rand(200, generator=torch.Generator().manual_seed(0))
    drawn[labelled] = -1
    part = drawn.argsort(descending=True)[:50]
    assert bought.tolist() == part[scores[part].argsort(descending=True)[:10]].tolist()
    assert TopK(subset=3)(candidates(scores, 10)).shape == (10,)  # never fewer than are bought
    everything = TopK(subset=1000)(candidates(scores, 10, labelled))
    assert everything.tolist() == TopK()(candidates(scores, 10, labelled)).tolist()
    with pytest.raises(SettingError, match=r"^--acquisition\.selection\.subset: .* got 0"):
        TopK(subset=0)


@pytest.mark.parametrize(
    "coldness", [0.0, 3.0, *(pytest.param(each, marks=pytest.mark.slow) for each in (0.5, 1.0))]
)
@pytest.mark.parametrize("choose", [Power, Softmax, Softrank])
def test_samples_have_the_distribution_of_the_paper(
    choose: type[Stochastic], coldness: float
) -> None:
    """Of ordered pairs: with p for the first, and p of what is left for the second."""
    labelled, draws = [3], 1500
    unlabelled = [i for i in range(len(SCORES)) if i not in labelled]
    by_rank = sorted(unlabelled, key=lambda i: -SCORES[i].item())
    weight = {
        Power: lambda i: SCORES[i].item() ** coldness,
        Softmax: lambda i: math.exp(coldness * SCORES[i].item()),
        Softrank: lambda i: (1 + by_rank.index(i)) ** -coldness,
    }[choose]
    seen = Counter(
        tuple(choose(coldness)(candidates(SCORES, 2, labelled, seed)).tolist())
        for seed in range(draws)
    )
    total = sum(map(weight, unlabelled))
    for first, second in itertools.permutations(unlabelled, 2):
        p = weight(first) / total * weight(second) / (total - weight(first))
        error = 4.5 * math.sqrt(p * (1 - p) / draws) + 1e-9
        assert abs(seen[first, second] / draws - p) <= error, (first, second)


@pytest.mark.parametrize("choose", [Power, Softmax, Softrank])
def test_the_same_generator_chooses_the_same_and_the_coldest_is_top_k(
    choose: type[Stochastic],
) -> None:
    one, again = (choose()(candidates(SCORES, 3, seed=1)).tolist() for _ in range(2))
    assert one == again
    assert len({tuple(choose()(candidates(SCORES, 3, seed=s)).tolist()) for s in range(20)}) > 5
    assert choose(coldness=1e4)(candidates(SCORES, 3, [3])).tolist() == [2, 5, 0]
    assert sorted(choose()(candidates(SCORES, 9, [3])).tolist()) == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("coldness", [3.3e38, 1e39, 1e300])
@pytest.mark.parametrize("choose", [Power, Softmax, Softrank])
def test_scores_that_overflow_rank_nothing_in_silence(
    choose: type[Stochastic], coldness: float
) -> None:
    scores = torch.tensor([0.0, 40.0, 0.2, 900.0, 0.5, 7.0])
    with pytest.raises(SettingError, match=r"^--acquisition\.selection\.coldness: .*e\+.* TopK is"):
        choose(coldness)(candidates(scores, 3))


@pytest.mark.parametrize("choose", [Power, Softmax, Softrank])
def test_a_score_of_0_is_no_overflow(choose: type[Stochastic]) -> None:
    scores = torch.tensor([0.0, 0.4, 0.0, 0.3, 0.0, 0.2])
    assert choose(1e5)(candidates(scores, 3)).tolist() == [1, 3, 5]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_has_no_order_is_not_ranked(wrong: float) -> None:
    with pytest.raises(SettingError, match=r"^--acquisition\.selection: .*no order"):
        TopK()(candidates(torch.tensor([0.1, wrong, 0.3, 0.4, 0.5, 0.6]), 3))


def test_power_refuses_scores_that_are_no_probabilities() -> None:
    with pytest.raises(SettingError, match=r"--acquisition\.selection: Power takes scores as prob"):
        Power()(candidates(-SCORES, 2))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [2, 4])
def test_batch_bald_is_greedy_in_the_joint_information(seed: int, classes: int) -> None:
    log_probs = random_log_probs(12, 7, classes, scale=2.0, seed=seed)
    chosen: list[int] = []
    for _ in range(4):
        left = [i for i in range(12) if i not in chosen]
        chosen.append(max(left, key=lambda i: joint_information(log_probs[[*chosen, i]])))
    scores = torch.tensor([joint_information(image[None]) for image in log_probs])
    of = candidates(scores, 4, log_probs=log_probs)
    assert BatchBALD()(of).tolist() == chosen


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_batch_bald_is_that_of_batchbald_redux(seed: int) -> None:
    peer = pytest.importorskip("batchbald_redux.batchbald", reason="needs batchbald-redux")
    log_probs = random_log_probs(30, 20, 10, scale=2.0, seed=seed)
    theirs = peer.get_batchbald_batch(log_probs.double(), 4, 10_000, dtype=torch.double)
    scores = torch.tensor([joint_information(image[None]) for image in log_probs])
    assert BatchBALD()(candidates(scores, 4, log_probs=log_probs)).tolist() == theirs.indices


@pytest.mark.parametrize("seed", range(3))
def test_sampled_outcomes_choose_a_batch_as_good_as_enumerated_ones(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_probs = random_log_probs(20, 200, 4, scale=1.0, seed=seed).repeat(3, 1, 1)  # copies
    scores = torch.tensor([joint_information(image[None]) for image in log_probs])
    found = {}
    for most in (4**6, 100):  # all outcomes of six images, and of three
        monkeypatch.setattr(selection, "MOST_OUTCOMES", most)
        chosen = BatchBALD()(candidates(scores, 6, log_probs=log_probs))
        found[most] = joint_information(log_probs[chosen])
    assert found[100] >= 0.98 * found[4**6]
    assert found[4**6] > 1.1 * joint_information(log_probs[scores.topk(6).indices])


def test_batch_bald_buys_one_of_two_copies() -> None:
    certain = torch.eye(2).clamp(min=1e-30).log()
    undecided = certain[[0, 1, 0, 1]]  # draws disagree: log 2 to learn
    other = certain[[0, 0, 1, 1]]  # independent of it
    weak = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]]).log()
    log_probs = torch.stack([undecided, undecided, weak, other])
    scores = torch.tensor([joint_information(image[None]) for image in log_probs])
    of = candidates(scores, 2, log_probs=log_probs)
    assert BatchBALD()(of).tolist() == [0, 3]
    assert TopK()(of).tolist() == [0, 1]


@pytest.mark.parametrize("numbers", [1, 10**9])
def test_batch_bald_of_saturated_logits_is_bounded_and_no_nan(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "NUMBERS_AT_ONCE", numbers)
    monkeypatch.setattr(selection, "MOST_OUTCOMES", 50)
    log_probs = random_log_probs(30, 10, 5, scale=1e5, seed=0)
    log_probs[::2] = log_probs[::2].clamp(max=0).where(log_probs[::2] > -1e3, -torch.inf)
    scores = torch.tensor([joint_information(image[None].clamp(min=-1e4)) for image in log_probs])
    chosen = BatchBALD()(candidates(scores, 8, log_probs=log_probs)).tolist()
    assert len(set(chosen)) == 8
    # Each draw is certain: as soon as all ten are told apart there is nothing more to learn.
    assert joint_information(log_probs[chosen[:6]]) == pytest.approx(math.log(10), abs=0.15)


def test_batch_bald_looks_at_the_highest_candidates_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MOST_CANDIDATES", 5)
    log_probs = random_log_probs(40, 10, 3, scale=2.0, seed=0)
    asked: list[int] = []
    of = replace(
        candidates(torch.arange(40.0), 3, [39]),
        draws=lambda some: (asked.extend(some.tolist()), log_probs[some])[1],
    )
    chosen = BatchBALD()(of).tolist()
    assert sorted(asked) == [34, 35, 36, 37, 38]
    assert set(chosen) <= set(asked)


@pytest.mark.parametrize("coldness", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("choose", [Power, Softmax, Softrank])
def test_a_coldness_that_is_no_finite_number_from_0_is_refused(
    choose: type[Stochastic], coldness: float
) -> None:
    with pytest.raises(SettingError, match=r"selection\.coldness: must be a finite number from 0"):
        choose(coldness)


def test_random_ignores_scores_and_buys_every_image_equally_often() -> None:
    draws, labelled = 4000, [3]
    seen = Counter(
        pair
        for seed in range(draws)
        for pair in [tuple(Random()(candidates(SCORES, 2, labelled, seed)).tolist())]
    )
    pairs = list(itertools.permutations([0, 1, 2, 4, 5], 2))
    assert set(seen) == set(pairs)
    spread = math.sqrt(draws / len(pairs))
    assert max(abs(seen[pair] - draws / len(pairs)) for pair in pairs) < 5 * spread
    of = [candidates(scores, 3, labelled, seed=5) for scores in (SCORES, -100 * SCORES)]
    assert torch.equal(Random()(of[0]), Random()(of[1]))
    assert sorted(Random()(candidates(SCORES, 9, labelled)).tolist()) == [0, 1, 2, 4, 5]


def test_the_first_labels_are_a_uniform_subset_in_ascending_order() -> None:
    draws = 3000
    chosen = [
        RandomSubset()(candidates(torch.zeros(7), 3, [2], seed)).tolist() for seed in range(draws)
    ]
    assert all(indices == sorted(indices) for indices in chosen)
    subsets = Counter(map(tuple, chosen))
    assert set(subsets) == set(itertools.combinations([0, 1, 3, 4, 5, 6], 3))
    spread = math.sqrt(draws / len(subsets))
    assert max(abs(n - draws / len(subsets)) for n in subsets.values()) < 5 * spread


@pytest.mark.parametrize("seed", range(10))
def test_the_first_labels_may_be_balanced_by_class(seed: int) -> None:
    classes = torch.arange(30) % 3
    of = candidates(torch.zeros(30), 7, seed=seed, known_labels_N=classes)
    assert sorted(classes[RandomSubset(balanced=True)(of)].bincount().tolist()) == [2, 2, 3]


def test_a_balanced_subset_needs_labels_that_are_known() -> None:
    with pytest.raises(SettingError, match=r"initial_selection\.balanced: the data set has no lab"):
        RandomSubset(balanced=True)(candidates(torch.zeros(7), 3))


def test_a_known_label_changes_no_selection_but_the_balanced_one() -> None:
    log_probs = random_log_probs(6, 5, 3, scale=2.0, seed=0)
    for choose in (TopK(), Power(), Softmax(), Softrank(), Random(), RandomSubset(), BatchBALD()):
        bought = [
            choose(candidates(SCORES, 3, [3], log_probs=log_probs, known_labels_N=labels)).tolist()
            for labels in (None, torch.tensor([0, 0, 0, 1, 1, 1]))
        ]
        assert bought[0] == bought[1], choose


def test_only_selections_that_look_at_no_score_may_do_without_a_ranking() -> None:
    ranking = {choose: choose.ranks for choose in (TopK, Power, Softmax, Softrank, BatchBALD)}
    assert set(ranking.values()) == {True}
    assert (Random.ranks, RandomSubset.ranks) == (False, False)


def test_predictions_cannot_be_asked_for_before_there_is_a_network() -> None:
    of = replace(candidates(torch.zeros(6), 3), draws=None)
    with pytest.raises(SettingError, match=r"--acquisition\.initial_selection: .* RandomSubset"):
        BatchBALD()(of)
    assert len(RandomSubset()(of)) == 3  # asks for none


class Halves(nn.Module):
    """A trunk that makes maps, which are to be flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Unflatten(1, (2, 2))


def test_features_are_the_flat_output_of_the_trunk_for_the_images_asked_for() -> None:
    images = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))

    def of_images(function: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
        return function(images[indices])

    of = replace(candidates(SCORES, 2), map=of_images, network=Halves())
    assert torch.equal(of.features(torch.tensor([4, 1])), images[[4, 1]])
    for network in (None, nn.Linear(4, 2)):
        with pytest.raises(SettingError, match=r"--acquisition\.selection: .* has no trunk"):
            replace(of, network=network).features(torch.tensor([0]))
