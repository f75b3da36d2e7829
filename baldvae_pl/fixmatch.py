"""FixMatch (Sohn et al. 2020): what the network is sure of in U is a label for a stronger view."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baldvae_pl.errors import SettingError
from baldvae_pl.objective import Objective, Step
from baldvae_pl.posterior import eval_mode
from baldvae_pl.selection import Candidates
from baldvae_pl.views import strong_view, weak_view

MEMORY = 0.99
"""How much of the mean prediction of a step is kept at the next."""


class FixMatch(Objective):
    """Cross-entropy on weak views of L and G, and on strong views of W with guessed labels.

    A guess is the network's own prediction for a weak view, with dropout off, where its
    probability is high. Before that predictions are aligned (Berthelot et al. 2020, "ReMixMatch"):
    each class is weighted down by how often it is predicted, so that on average all are predicted
    equally often.

    Args:
        sure: A guess counts from this probability on.
        weight: Of the guesses' loss.
        aligned: Assume that all classes are about equally frequent in W.
        unlabelled_batch_size: Images of W a step, over all processes.
    """

    unlabelled: Literal["U", "W"] | None = "W"
    moves_images = True

    def __init__(
        self,
        sure: float = 0.95,
        weight: float = 1.0,
        aligned: bool = True,
        unlabelled_batch_size: int = 128,
    ) -> None:
        if not 0 <= sure < 1:
            raise SettingError(f"--model.objective.sure: must be from 0 to below 1, got {sure}.")
        self.sure = sure
        self.weight = weight
        self.aligned = aligned
        self.unlabelled_batch_size = unlabelled_batch_size
        self.mean_C: Tensor | None = None

    def on_train_start(self, candidates: Candidates) -> None:  # noqa: ARG002
        """Forget which classes the network of the round before predicted."""
        self.mean_C = None

    def __call__(self, step: Step) -> Tensor:
        """Return the sum of both losses, in nats; ``sure`` is the share of W with a guess."""
        assert step.unlabelled is not None
        with torch.no_grad(), eval_mode(step.network):
            probs_n_C = step.network(weak_view(step.unlabelled)).float().softmax(-1)
        probability_n, guess_n = self.align(probs_n_C).max(-1)
        seen = torch.cat([weak_view(step.images), strong_view(step.unlabelled)])
        labelled, strong = step.network(seen).split([len(step.images), len(step.unlabelled)])
        counts_n = probability_n >= self.sure
        of_guess_n = F.cross_entropy(strong, guess_n, reduction="none") * counts_n
        self.measures = {"sure": counts_n.float().mean()}
        return F.cross_entropy(labelled, step.labels) + self.weight * of_guess_n.mean()

    def align(self, probs_n_C: Tensor) -> Tensor:
        """Return predictions whose mean over the last hundred steps or so is even."""
        if not self.aligned:
            return probs_n_C
        mean_C = probs_n_C.mean(0)
        if self.mean_C is not None:
            mean_C = MEMORY * self.mean_C + (1 - MEMORY) * mean_C
        self.mean_C = mean_C
        return F.normalize(probs_n_C / mean_C, p=1, dim=-1)
