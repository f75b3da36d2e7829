"""Objectives against cross-entropy by hand; their batches are in data/test_module.py."""

import math

import pytest
import torch
from torch import Tensor, nn

from baldvae_pl.objective import CrossEntropy, Objective, Step


class Logits(nn.Module):
    """Logits that are the images themselves, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * images.flatten(1)


def test_the_default_is_the_mean_cross_entropy_in_nats() -> None:
    generator = torch.Generator().manual_seed(0)
    images = 3 * torch.randn(7, 1, 1, 4, generator=generator)
    labels = torch.randint(4, (7,), generator=generator)
    loss = CrossEntropy()(Step(Logits(), images, labels))
    by_hand = [
        math.log(math.fsum(map(math.exp, row))) - row[label]
        for row, label in zip(images.flatten(1).tolist(), labels.tolist(), strict=True)
    ]
    assert loss.shape == ()
    assert loss.item() == pytest.approx(math.fsum(by_hand) / 7, rel=1e-5)


def test_the_default_leaves_a_gradient_and_looks_at_nothing_unlabelled() -> None:
    network = Logits()
    images, labels = torch.tensor([[1.0, 0]]), torch.tensor([1])
    nothing = torch.full((3, 2), torch.nan)
    CrossEntropy()(Step(network, images, labels, unlabelled=nothing)).backward()
    # d/dw (log(e^w + 1) - 0) at w = 1
    assert network.weight.grad.item() == pytest.approx(1 / (1 + math.exp(-1)))


def test_an_objective_asks_for_unlabelled_images_only_if_it_says_so() -> None:
    assert CrossEntropy().unlabelled is None
    assert Objective.unlabelled is None
    assert Objective.unlabelled_batch_size == 64
    with pytest.raises(TypeError, match="abstract"):
        Objective()


def test_an_objective_of_ones_own_sees_the_whole_step() -> None:
    class Entropy(Objective):
        unlabelled = "U"

        def __init__(self, weight: float, unlabelled_batch_size: int) -> None:
            self.weight, self.unlabelled_batch_size = weight, unlabelled_batch_size

        def __call__(self, step: Step) -> Tensor:
            probs = step.network(step.unlabelled).softmax(1)
            return CrossEntropy()(step) + self.weight * torch.special.entr(probs).sum(1).mean()

    objective = Entropy(weight=0.5, unlabelled_batch_size=2)
    even = torch.zeros(3, 4)
    step = Step(Logits(), torch.zeros(2, 4), torch.tensor([0, 3]), even)
    assert step.autoencoder is None
    assert objective(step).item() == pytest.approx(1.5 * math.log(4))
    assert (objective.unlabelled, objective.unlabelled_batch_size) == ("U", 2)
