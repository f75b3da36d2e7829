"""FixMatch (Sohn et al. 2020): what the network is sure of in W is a label for a stronger view."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baldvae_pl.errors import SettingError
from baldvae_pl.objective import Objective, Step
from baldvae_pl.posterior import eval_mode
from baldvae_pl.selection import Candidates
from baldvae_pl.views import strong_view, weak_view

EMA_DECAY = 0.99
"""How much of the mean prediction of a step is kept at the next."""


class FixMatch(Objective):
    """Cross-entropy on weak views of L and G, and on strong views of W with pseudo-labels.

    A pseudo-label is the network's own prediction for a weak view, with dropout off, where its
    probability is high. Before that predictions are aligned (Berthelot et al. 2020, "ReMixMatch"):
    each class is weighted down by how often it is predicted, so that on average all are predicted
    equally often. Each process goes by its own predictions.

    Args:
        threshold: A pseudo-label counts from this probability on.
        weight: Of the loss of pseudo-labels.
        distribution_alignment: Assume that all classes are about equally frequent in W.
        unlabelled_batch_size: Images of W a step, over all processes.
    """

    unlabelled: Literal["U", "W"] | None = "W"
    moves_images = True

    def __init__(
        self,
        threshold: float = 0.95,
        weight: float = 1.0,
        distribution_alignment: bool = True,
        unlabelled_batch_size: int = 128,
    ) -> None:
        check_threshold(threshold)
        self.threshold = threshold
        self.weight = weight
        self.distribution_alignment = distribution_alignment
        self.unlabelled_batch_size = unlabelled_batch_size
        self.mean_C: Tensor | None = None

    def on_train_start(self, candidates: Candidates) -> None:  # noqa: ARG002
        """Forget which classes the network of the round before predicted."""
        self.mean_C = None

    def __call__(self, step: Step) -> Tensor:
        """Return the loss in nats; ``confident`` is the share of W that has a pseudo-label."""
        assert step.unlabelled is not None
        with torch.no_grad(), eval_mode(step.network):
            probs_n_C = step.network(weak_view(step.unlabelled)).float().softmax(-1)
        # Else weights that were cast without gradients are used again (pytorch issue 112583).
        torch.clear_autocast_cache()
        probability_n, pseudo_label_n = self.align(probs_n_C).max(-1)
        confident_n = probability_n >= self.threshold
        self.measures = {"confident": confident_n.float().mean()}
        return loss_of_views(step, pseudo_label_n, confident_n, self.weight)

    def align(self, probs_n_C: Tensor) -> Tensor:
        """Return predictions whose mean over the last hundred steps or so is even."""
        if not self.distribution_alignment:
            return probs_n_C
        mean_C = probs_n_C.mean(0)
        if self.mean_C is not None:
            mean_C = EMA_DECAY * self.mean_C + (1 - EMA_DECAY) * mean_C
        self.mean_C = mean_C
        return F.normalize(probs_n_C / mean_C, p=1, dim=-1)


def loss_of_views(step: Step, pseudo_label_n: Tensor, confident_n: Tensor, weight: float) -> Tensor:
    """Return the cross-entropy of weak views of L and G, and of strong views of W.

    Args:
        step: The training step.
        pseudo_label_n: Classes of the images of W.
        confident_n: Which of them count, a mask; the others have no loss, but are averaged over.
        weight: Of the second term.
    """
    assert step.unlabelled is not None
    views = torch.cat([weak_view(step.images), strong_view(step.unlabelled)])
    labelled, strong = step.network(views).split([len(step.images), len(step.unlabelled)])
    of_each_n = F.cross_entropy(strong, pseudo_label_n, reduction="none") * confident_n
    return F.cross_entropy(labelled, step.labels) + weight * of_each_n.mean()


def check_threshold(threshold: float) -> None:
    """Raise a SettingError if it is no probability that counts."""
    if not 0 <= threshold < 1:
        raise SettingError(
            f"--model.objective.threshold: must be from 0 to below 1, got {threshold}."
        )
