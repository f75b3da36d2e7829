"""Labels that the graph spreads, trained with: against the spreading itself, and by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from baldvae_pl import fixmatch
from baldvae_pl.errors import SettingError
from baldvae_pl.geometry import PoissonLabels
from baldvae_pl.geometry.graph import neighbour_graph
from baldvae_pl.geometry.poisson import pseudo_labels
from baldvae_pl.objective import Step
from baldvae_pl.selection import Candidates

W = torch.cat([torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (9, 11)])
W[9:] += 20
LABELLED = torch.tensor([15, 2])  # in the order in which they were bought
OUTSIDE = [4, 17]  # nobody could tell, or kept for the audit


def candidates(labels: list[int]) -> Candidates:
    free = torch.tensor([i for i in range(20) if i not in [*LABELLED.tolist(), *OUTSIDE]])
    return Candidates(
        priorities_N=torch.zeros(20),
        labelled=LABELLED,
        query_size=0,
        highest=lambda priorities_N, count: free[:count],
        map=lambda look, indices: look(W[indices]),
        generator=torch.Generator(),
        labels=torch.tensor(labels),
    )


def test_every_image_of_the_graph_gets_the_label_that_reaches_it() -> None:
    objective = PoissonLabels(space="images")
    objective.on_train_start(candidates([1, 0]))
    inside = torch.tensor([i for i in range(20) if i not in OUTSIDE])
    labels_n = torch.full((18,), -1)
    labels_n[(inside == 15).nonzero()] = 1
    labels_n[(inside == 2).nonzero()] = 0
    probs_n_C, confidence_n = pseudo_labels(neighbour_graph(W[inside]), labels_n, 2)
    assert torch.equal(objective.pseudo_labels_N[inside], probs_n_C.argmax(1))
    torch.testing.assert_close(objective.confidence_N[inside], confidence_n)
    assert objective.confidence_N[OUTSIDE].tolist() == [0, 0]
    assert objective.pseudo_labels_N[inside].tolist() == (inside >= 9).long().tolist()
    objective.on_train_start(candidates([0, 1]))  # the labels of the next round are others
    assert objective.pseudo_labels_N[inside].tolist() == (inside < 9).long().tolist()


def test_with_one_class_nothing_is_sure_but_what_is_labelled() -> None:
    objective = PoissonLabels(space="images")
    objective.on_train_start(candidates([0, 0]))
    assert (objective.confidence_N >= objective.threshold).nonzero().flatten().tolist() == [2, 15]


def cross_entropy(logits: list[float], label: int) -> float:
    return math.log(sum(map(math.exp, logits))) - logits[label]


def test_the_loss_is_that_of_labels_and_of_sure_ones_of_the_graph_for_strong_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fixmatch, "weak_view", lambda images: images)
    monkeypatch.setattr(fixmatch, "strong_view", lambda images: images.roll(1, 1))
    objective = PoissonLabels(threshold=0.9, weight=0.5)
    objective.pseudo_labels_N = torch.tensor([0, 2, 1, 0])
    objective.confidence_N = torch.tensor([0.95, 0.1, 0.9, 0.0])
    unlabelled = torch.tensor([[5.0, 0, 0], [0, 0.5, 0], [0, 0, 4]])
    step = Step(
        nn.Identity(),
        torch.tensor([[2.0, 0, 1]]),
        torch.tensor([0]),
        unlabelled,
        unlabelled_indices=torch.tensor([2, 1, 0]),
    )
    loss = objective(step)
    guessed = (cross_entropy([0, 5, 0], 1) + cross_entropy([4, 0, 0], 0)) / 3
    assert loss.item() == pytest.approx(cross_entropy([2, 0, 1], 0) + 0.5 * guessed, rel=1e-5)
    assert objective.measures["confident"].item() == pytest.approx(2 / 3)


def test_the_vae_is_trained_for_latents_alone() -> None:
    assert PoissonLabels().needs_vae
    assert not PoissonLabels(space="images").needs_vae


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(threshold: float) -> None:
    with pytest.raises(SettingError, match=r"^--model\.objective\.threshold: .* got "):
        PoissonLabels(threshold=threshold)


def test_views_are_drawn_from_the_images_of_the_step_alone() -> None:
    objective = PoissonLabels(space="images")
    objective.on_train_start(candidates([1, 0]))
    seen: list[Tensor] = []

    class Linear(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().forward(images)

    indices = torch.tensor([0, 15, 4])
    objective(Step(Linear(3, 2), W[[2]], torch.tensor([0]), W[indices], None, indices))
    assert [len(images) for images in seen] == [4]  # one pass through the network
    assert objective.measures["confident"].item() == pytest.approx(2 / 3)  # 4 is not in the graph
