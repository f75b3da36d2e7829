"""EPIG against its definition, outcome by outcome."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baldvae_pl import epig
from baldvae_pl.acquisition import bald
from baldvae_pl.epig import EPIG
from baldvae_pl.errors import SettingError


def random_log_probs(*shape: int, seed: int, scale: float = 2.0) -> Tensor:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (scale * logits).log_softmax(-1)


def by_definition(log_probs_N_T_C: Tensor, log_probs_M_T_C: Tensor) -> list[float]:
    """The mean over targets of KL(p(y, y*) || p(y) p(y*)), going through all pairs of labels."""
    images, targets = log_probs_N_T_C.double().exp(), log_probs_M_T_C.double().exp()
    scores = []
    for image_T_C in images:
        total = 0.0
        for target_T_C in targets:
            for y, y_star in itertools.product(range(images.shape[2]), repeat=2):
                joint = (image_T_C[:, y] * target_T_C[:, y_star]).mean().item()
                apart = image_T_C[:, y].mean().item() * target_T_C[:, y_star].mean().item()
                total += joint * math.log(joint / apart)
        scores.append(total / len(targets))
    return scores


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.integers(1, 6), st.integers(1, 5), st.integers(2, 4))
def test_it_is_the_mean_information_of_label_and_targets_label(
    seed: int, draws: int, targets: int, classes: int
) -> None:
    images = random_log_probs(5, draws, classes, seed=seed)
    given_targets = random_log_probs(targets, draws, classes, seed=seed + 100)
    scores = EPIG().given(given_targets)(images)
    assert scores.tolist() == pytest.approx(by_definition(images, given_targets), abs=2e-6)
    assert (scores >= 0).all()
    # The target's label can tell no more of an image's label than the weights do.
    assert (scores <= bald(images) + 2e-6).all()


def test_it_does_not_depend_on_how_many_are_scored_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, targets = random_log_probs(50, 8, 5, seed=0), random_log_probs(7, 8, 5, seed=1)
    together = EPIG().given(targets)(images)
    monkeypatch.setattr(epig, "NUMBERS_AT_ONCE", 3 * 7 * 25)  # three images
    torch.testing.assert_close(EPIG().given(targets)(images), together, rtol=0, atol=2e-6)
    monkeypatch.setattr(epig, "NUMBERS_AT_ONCE", 1)
    torch.testing.assert_close(EPIG().given(targets)(images), together, rtol=0, atol=2e-6)


def test_it_prefers_what_tells_of_the_targets_to_what_tells_of_the_weights() -> None:
    """Two independent coins are the weights; the targets depend on the first alone."""
    sure = torch.tensor([[0.999, 0.001], [0.001, 0.999]]).log()
    first, second = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    images = torch.stack([sure[first], sure[second]])
    information = bald(images)
    assert information[0].item() == pytest.approx(information[1].item(), abs=1e-6)
    scores = EPIG().given(sure[first][None])(images)
    assert scores[0] > 0.67  # nearly log 2
    assert scores[1] < 1e-6


def test_certain_predictions_that_agree_tell_nothing_and_that_disagree_all() -> None:
    classes = 4
    certain = torch.eye(classes).log()  # draw t is certain of class t
    agree = certain[:1].expand(classes, -1)
    scores = EPIG().given(certain[None])(torch.stack([agree, certain]))
    assert scores.tolist() == pytest.approx([0, math.log(classes)], abs=1e-6)


def test_no_targets_are_refused() -> None:
    with pytest.raises(SettingError, match=r"^--acquisition\.function\.targets: .* got 0\."):
        EPIG(targets=0)
