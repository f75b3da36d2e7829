"""FixMatch against its definition by hand, on views that are the images themselves."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baldvae_pl import fixmatch
from baldvae_pl.errors import SettingError
from baldvae_pl.fixmatch import EMA_DECAY, FixMatch
from baldvae_pl.objective import Step


class Seen(nn.Module):
    """Logits that are the images themselves, or 0 in training mode, and who looked at what."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[bool, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((self.training, len(images)))
        return images


@pytest.fixture
def same_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weak views are the images, strong ones are turned by a class."""
    monkeypatch.setattr(fixmatch, "weak_view", lambda images: images)
    monkeypatch.setattr(fixmatch, "strong_view", lambda images: images.roll(1, 1))


NOBODY: Any = None  # it looks at no pools


def cross_entropy(logits: list[float], label: int) -> float:
    return math.log(sum(map(math.exp, logits))) - logits[label]


LABELLED = torch.tensor([[2.0, 0, 1], [0, 1, 0]])
UNLABELLED = torch.tensor([[5.0, 0, 0], [0, 0.5, 0], [0, 0, 4], [1, 1, 1]])


@pytest.mark.usefixtures("same_views")
def test_the_loss_is_that_of_labels_and_of_sure_guesses_for_strong_views() -> None:
    network = Seen().train()
    objective = FixMatch(
        threshold=0.9, weight=0.5, distribution_alignment=False, unlabelled_batch_size=4
    )
    step = Step(network, LABELLED, torch.tensor([0, 2]), UNLABELLED)
    loss = objective(step)
    # Sure are the first (class 0) and the third (class 2); their strong views are turned by one.
    supervised = (cross_entropy([2, 0, 1], 0) + cross_entropy([0, 1, 0], 2)) / 2
    guessed = (cross_entropy([0, 5, 0], 0) + cross_entropy([4, 0, 0], 2)) / 4
    assert loss.item() == pytest.approx(supervised + 0.5 * guessed, rel=1e-5)
    assert objective.measures["confident"].item() == 0.5
    assert network.calls == [(False, 4), (True, 6)]  # guesses without dropout, then all at once
    assert network.training


@pytest.mark.usefixtures("same_views")
def test_aligned_predictions_are_even_on_average_and_remember() -> None:
    objective = FixMatch()
    objective.on_train_start(NOBODY)
    first = torch.tensor([[0.8, 0.2], [0.6, 0.4]])
    by_hand = first / torch.tensor([0.7, 0.3])
    torch.testing.assert_close(objective.align(first), by_hand / by_hand.sum(1, keepdim=True))
    second = torch.tensor([[0.5, 0.5]])
    mean = EMA_DECAY * torch.tensor([0.7, 0.3]) + (1 - EMA_DECAY) * 0.5
    torch.testing.assert_close(objective.align(second)[0], (0.5 / mean) / (0.5 / mean).sum())
    objective.on_train_start(NOBODY)
    torch.testing.assert_close(objective.align(first), by_hand / by_hand.sum(1, keepdim=True))


@pytest.mark.usefixtures("same_views")
def test_no_gradient_flows_through_a_guess() -> None:
    images = UNLABELLED.clone().requires_grad_()
    FixMatch(threshold=0.9, distribution_alignment=False)(
        Step(nn.Identity(), torch.zeros(1, 3), torch.tensor([0]), images)
    ).backward()
    # Of those without a guess there is none at all; of the others that of the cross-entropy alone.
    assert images.grad is not None
    assert images.grad[[1, 3]].abs().max() == 0
    probs = UNLABELLED[0].roll(1).softmax(0)
    expected = (probs - torch.tensor([1.0, 0, 0])).roll(-1) / 4
    torch.testing.assert_close(images.grad[0], expected)


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(threshold: float) -> None:
    with pytest.raises(SettingError, match=r"^--model\.objective\.threshold: .* got "):
        FixMatch(threshold=threshold)
