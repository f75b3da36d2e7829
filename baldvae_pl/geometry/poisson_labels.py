"""Poisson labels: what the neighbour graph makes of few labels is trained with where it is sure."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baldvae_pl.errors import SettingError
from baldvae_pl.geometry.graph import graph_of
from baldvae_pl.geometry.poisson import pseudo_labels
from baldvae_pl.geometry.space import points
from baldvae_pl.objective import Objective, Step
from baldvae_pl.selection import Candidates
from baldvae_pl.views import strong_view, weak_view


class PoissonLabels(Objective):
    """Cross-entropy on weak views of L and G, and on strong views of W with labels of the graph.

    Before a round its labels are spread over the graph of nearest neighbours of W (Calder et al.
    2020, "Poisson Learning"), and the surest images are trained with. The network itself guesses
    nothing, so that it cannot confirm its own mistakes; it learns those of the graph. How many
    images of U the graph alone gives their class is in the records as ``graph/acc``: what can be
    had without any network.

    Args:
        space: In which images are near to each other: ``latents`` of the VAE, or ``images``
            themselves, the space for vectors of a frozen network.
        sure: A label of the graph counts from this probability on, see `pseudo_labels`.
        weight: Of the loss of these labels.
        unlabelled_batch_size: Images of W a step, over all processes.

    Attributes:
        guesses_N: The class that the graph gives each image of W in this round.
        confidence_N: How sure it is: 0 for images that are not in the graph.
    """

    unlabelled: Literal["U", "W"] | None = "W"
    moves_images = True

    def __init__(
        self,
        space: Literal["latents", "images"] = "latents",
        sure: float = 0.95,
        weight: float = 1.0,
        unlabelled_batch_size: int = 128,
    ) -> None:
        if not 0 <= sure < 1:
            raise SettingError(f"--model.objective.sure: must be from 0 to below 1, got {sure}.")
        self.space: Literal["latents", "images"] = space
        self.sure = sure
        self.weight = weight
        self.unlabelled_batch_size = unlabelled_batch_size
        self.needs_vae = space == "latents"
        self.guesses_N = torch.empty(0, dtype=torch.long)
        self.confidence_N = torch.empty(0)

    def on_train_start(self, candidates: Candidates) -> None:
        """Spread the labels."""
        known = candidates.labelled
        indices = torch.cat([known, candidates.unlabelled])
        order = indices.argsort()  # the same in each round, so that the graph is made once
        labels_N = torch.full((len(indices),), -1)
        labels_N[: len(known)] = candidates.labels
        graph = graph_of(points(candidates, indices[order], self.space))
        classes = max(2, int(candidates.labels.max()) + 1)
        probs_n_C, confidence_n = pseudo_labels(graph, labels_N[order], classes)
        size = len(candidates.priorities_N)
        self.guesses_N = torch.zeros(size).long().index_put((indices[order],), probs_n_C.argmax(1))
        self.confidence_N = torch.zeros(size).index_put((indices[order],), confidence_n)

    def __call__(self, step: Step) -> Tensor:
        """Return the sum of both losses, in nats; ``sure`` is the share of W with a label."""
        assert step.unlabelled is not None
        assert step.unlabelled_indices is not None
        which, device = step.unlabelled_indices.cpu(), step.labels.device
        guess_n = self.guesses_N[which].to(device)
        counts_n = (self.confidence_N[which] >= self.sure).to(device)
        seen = torch.cat([weak_view(step.images), strong_view(step.unlabelled)])
        labelled, strong = step.network(seen).split([len(step.images), len(step.unlabelled)])
        of_guess_n = F.cross_entropy(strong, guess_n, reduction="none") * counts_n
        self.measures = {"sure": counts_n.float().mean()}
        return F.cross_entropy(labelled, step.labels) + self.weight * of_guess_n.mean()
