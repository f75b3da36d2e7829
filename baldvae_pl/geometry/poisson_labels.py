"""Poisson labels: what the neighbour graph makes of few labels is trained with where it is sure."""

from typing import Literal

import torch
from torch import Tensor

from baldvae_pl.fixmatch import check_threshold, loss_of_views
from baldvae_pl.geometry.graph import graph_of
from baldvae_pl.geometry.poisson import pseudo_labels
from baldvae_pl.geometry.space import points
from baldvae_pl.objective import Objective, Step
from baldvae_pl.selection import Candidates


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
        threshold: A label of the graph counts from this probability on, see `pseudo_labels`.
        weight: Of the loss of these labels.
        unlabelled_batch_size: Images of W a step, over all processes.

    Attributes:
        pseudo_labels_N: The class that the graph gives each image of W in this round.
        confidence_N: How sure it is: 0 for images that are not in the graph.
    """

    unlabelled: Literal["U", "W"] | None = "W"
    moves_images = True

    def __init__(
        self,
        space: Literal["latents", "images"] = "latents",
        threshold: float = 0.95,
        weight: float = 1.0,
        unlabelled_batch_size: int = 128,
    ) -> None:
        check_threshold(threshold)
        self.space: Literal["latents", "images"] = space
        self.threshold = threshold
        self.weight = weight
        self.unlabelled_batch_size = unlabelled_batch_size
        self.needs_vae = space == "latents"
        self.pseudo_labels_N = torch.empty(0, dtype=torch.long)
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
        self.pseudo_labels_N = torch.zeros(len(candidates.priorities_N), dtype=torch.long)
        self.pseudo_labels_N[indices[order]] = probs_n_C.argmax(1)
        self.confidence_N = torch.zeros(len(candidates.priorities_N))
        self.confidence_N[indices[order]] = confidence_n

    def __call__(self, step: Step) -> Tensor:
        """Return the loss in nats; ``confident`` is the share of W whose label counts."""
        assert step.unlabelled_indices is not None
        which, device = step.unlabelled_indices.cpu(), step.labels.device
        confident_n = (self.confidence_N[which] >= self.threshold).to(device)
        self.measures = {"confident": confident_n.float().mean()}
        return loss_of_views(step, self.pseudo_labels_N[which].to(device), confident_n, self.weight)
