"""BALD against closed forms, brute force in double precision and two peer libraries."""

import math
import statistics
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor, nn

from baldvae_pl import acquisition
from baldvae_pl.acquisition import (
    NEED_DISAGREEMENT,
    NetworkScore,
    bald,
    least_confidence,
    margin,
    max_entropy,
    mean_std,
    variation_ratios,
)
from baldvae_pl.complement import ROUNDING


def random_log_probs(*shape: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (scale * logits).log_softmax(-1)


def bald_by_hand(log_probs_N_T_C: Tensor) -> Tensor:
    def entropy_of(probs: list[float]) -> float:
        return -math.fsum(p * math.log(p) for p in probs if p > 0)

    scores = []
    for draws in log_probs_N_T_C.double().exp().tolist():
        mean = [math.fsum(column) / len(draws) for column in zip(*draws, strict=True)]
        scores.append(entropy_of(mean) - math.fsum(map(entropy_of, draws)) / len(draws))
    return torch.tensor(scores, dtype=torch.double)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 10.0, 1e4])
@pytest.mark.parametrize(("draws", "classes"), [(2, 2), (100, 10), (100, 100)])
def test_draws_that_agree_score_zero(draws: int, classes: int, scale: float) -> None:
    scores = bald(random_log_probs(50, 1, classes, scale=scale).expand(-1, draws, -1))
    assert scores.min() >= 0
    assert scores.max() < ROUNDING / 5


@pytest.mark.parametrize("saturated", [True, False])
@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([0, 0, 0], 0),
        ([9], 0),
        ([0, 1], math.log(2)),
        ([4, 4, 4, 2], math.log(4) - 0.75 * math.log(3)),
        (list(range(10)), math.log(10)),
        (list(range(10)) * 10, math.log(10)),
    ],
)
def test_certain_draws_score_the_entropy_of_their_answers(
    answers: list[int], expected: float, saturated: bool
) -> None:
    one_hot_T_C = torch.eye(10)[answers]
    log_probs = (2e4 * one_hot_T_C - 1e4).log_softmax(-1) if saturated else one_hot_T_C.log()
    assert bald(log_probs[None]).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("p", [0.5, 0.6, 0.9, 0.999])
def test_two_opposite_draws(p: float) -> None:
    binary_entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    log_probs = torch.tensor([[[p, 1 - p], [1 - p, p]]]).log()
    assert bald(log_probs).item() == pytest.approx(math.log(2) - binary_entropy, abs=1e-6)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    arrays(
        "float32",
        array_shapes(min_dims=3, max_dims=3, max_side=7),
        elements=st.floats(-1e4, 1e4, width=32) | st.floats(-5, 5, width=32),
    )
)
def test_any_logits_give_the_brute_force_score_within_bounds(logits: object) -> None:
    log_probs = torch.as_tensor(logits).log_softmax(-1)
    scores = bald(log_probs)
    _, draws, classes = log_probs.shape
    assert scores.min() >= 0
    assert scores.max() <= math.log(min(draws, classes)) + ROUNDING / 5
    torch.testing.assert_close(scores.double(), bald_by_hand(log_probs), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_a_hundred_draws_give_the_brute_force_score(
    scale: float, dtype: torch.dtype, error: float
) -> None:
    log_probs = random_log_probs(40, 100, 10, scale=scale).to(dtype)
    scores = bald(log_probs)
    assert scores.dtype == dtype
    torch.testing.assert_close(scores.double(), bald_by_hand(log_probs), atol=error, rtol=0)


def test_a_score_depends_on_its_own_image_only() -> None:
    log_probs = random_log_probs(30, 20, 10)
    scores = bald(log_probs)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([bald(image[None]) for image in log_probs])
    odd_neighbours = log_probs.clone()
    odd_neighbours[::2] = torch.nan
    torch.testing.assert_close(bald(log_probs[order]), scores[order], atol=1e-6, rtol=0)
    torch.testing.assert_close(alone, scores, atol=1e-6, rtol=0)
    torch.testing.assert_close(bald(odd_neighbours)[1::2], scores[1::2], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "scale", [1.0, *(pytest.param(each, marks=pytest.mark.slow) for each in (0.1, 5.0))]
)
def test_the_same_as_batchbald_redux(scale: float) -> None:
    peer = pytest.importorskip("batchbald_redux.batchbald", reason="needs batchbald-redux")
    log_probs = random_log_probs(60, 20, 10, scale=scale)
    theirs = peer.compute_entropy(log_probs) - peer.compute_conditional_entropy(log_probs)
    torch.testing.assert_close(bald(log_probs).double(), theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_the_same_as_baal(scale: float) -> None:
    peer = pytest.importorskip("baal.active.heuristics", reason="needs baal")
    log_probs = random_log_probs(60, 20, 10, scale=scale)
    # Its arrays are [N, C, T]; it takes numbers outside [0, 1] for logits, which these also are.
    theirs = peer.BALD().get_uncertainties(log_probs.transpose(1, 2).double().numpy())
    ours = bald(log_probs).double()
    torch.testing.assert_close(ours, torch.as_tensor(theirs), atol=2e-6, rtol=0)


def mean_of(log_probs_N_T_C: Tensor) -> list[list[float]]:
    draws = log_probs_N_T_C.double().exp().tolist()
    return [[math.fsum(c) / len(image) for c in zip(*image, strict=True)] for image in draws]


def votes_of(image: list[list[float]]) -> list[int]:
    return [draw.index(max(draw)) for draw in image]


BY_HAND = {
    max_entropy: lambda x: [-math.fsum(p * math.log(p) for p in m if p) for m in mean_of(x)],
    least_confidence: lambda x: [1 - max(m) for m in mean_of(x)],
    margin: lambda x: [1 - (sorted(m)[-1] - sorted(m)[-2]) for m in mean_of(x)],
    variation_ratios: lambda x: [
        1 - max(votes_of(i).count(c) for c in votes_of(i)) / len(i) for i in x.tolist()
    ],
    mean_std: lambda x: [
        statistics.fmean(statistics.pstdev(c) for c in zip(*image, strict=True))
        for image in x.double().exp().tolist()
    ],
}
HIGHEST = {
    max_entropy: math.log(4),
    least_confidence: 0.75,
    margin: 1.0,
    variation_ratios: 0.75,
    mean_std: 3**0.5 / 4,
}


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 1e4])
@pytest.mark.parametrize("function", BY_HAND)
def test_other_functions_give_the_brute_force_score(
    function: Callable[[Tensor], Tensor], scale: float
) -> None:
    log_probs = random_log_probs(40, 30, 10, scale=scale)
    scores = function(log_probs)
    expected = torch.tensor(BY_HAND[function](log_probs), dtype=torch.double)
    torch.testing.assert_close(scores.double(), expected, atol=3e-6, rtol=0)
    assert scores.min() >= 0


@pytest.mark.parametrize("function", BY_HAND)
def test_other_functions_between_certainty_and_perfect_disagreement(
    function: Callable[[Tensor], Tensor],
) -> None:
    one_hot = torch.eye(4).clamp(min=1e-30).log()
    certain, split = one_hot[[2] * 4], one_hot[[0, 1, 2, 3]]
    scores = function(torch.stack([certain, split]))
    assert scores[0].item() == pytest.approx(0, abs=1e-6)
    assert scores[1].item() == pytest.approx(HIGHEST[function], abs=1e-6)


@pytest.mark.parametrize(
    ("function", "name"),
    [(max_entropy, "Entropy"), (margin, "Margin"), (least_confidence, "Certainty")],
)
def test_other_functions_order_as_baal_does(
    function: Callable[[Tensor], Tensor], name: str
) -> None:
    peer = pytest.importorskip("baal.active.heuristics", reason="needs baal")
    probs_N_T_C = random_log_probs(60, 20, 10).exp()
    heuristic = getattr(peer, name)()
    theirs = heuristic.get_ranks(probs_N_T_C.transpose(1, 2).double().numpy())[0]
    assert function(probs_N_T_C.double().log()).argsort(descending=True).tolist() == [*theirs]


EVERY = [bald, *BY_HAND]


def test_every_function_is_tested_here() -> None:
    assert {function.__name__ for function in EVERY} == set(acquisition.__all__)


@pytest.mark.parametrize("draws", [1, 7])
@pytest.mark.parametrize("function", EVERY)
def test_functions_that_need_disagreement_are_those_that_are_zero_without(
    function: Callable[[Tensor], Tensor], draws: int
) -> None:
    log_probs = random_log_probs(50, 1, 10, scale=1.0).expand(-1, draws, -1)
    scores = function(log_probs)
    if function in NEED_DISAGREEMENT:
        assert scores.abs().max() < 1e-6
    else:
        assert scores.min() > 0.01
        assert scores.std() > 0.01  # so that they rank images by one pass alone
    assert function(random_log_probs(50, 7, 10, scale=3.0)).min() > 0  # where draws disagree


def test_the_functions_that_need_disagreement_are_these() -> None:
    assert set(NEED_DISAGREEMENT) == {bald, mean_std, variation_ratios}


def test_a_network_score_is_a_class_that_has_to_say_how_it_scores() -> None:
    with pytest.raises(TypeError, match="abstract"):
        NetworkScore()

    class Brightness(NetworkScore):
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def score(self, network: nn.Module, images: Tensor) -> Tensor:
            return self.factor * network(images).sum(1)

    images = torch.tensor([[[[1.0, 2]]], [[[3, 4]]]])
    assert Brightness(factor=2).score(nn.Flatten(), images).tolist() == [6, 14]
