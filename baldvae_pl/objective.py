"""Objectives: the loss of a training step of the classifier."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.complement import Autoencoder


class Step(NamedTuple):
    """A training step as an objective sees it, on the accelerator.

    Attributes:
        network: The classifier, in training mode.
        images: Of L and G, floats in [0, 1], augmented; shape (n, C, H, W), or vectors (n, D).
        labels: Theirs, shape (n,).
        unlabelled: Images of U, or of all of W, not augmented, if the objective asks for them.
        autoencoder: The frozen VAE of the run, or a part of the module; None if there is none.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    unlabelled: Tensor | None = None
    autoencoder: Autoencoder | None = None


class Objective(ABC):
    """A loss. Options of a subclass are the parameters of its ``__init__``.

    A subclass that learns from unlabelled images says which, and how many a step:
    """

    unlabelled: Literal["U", "W"] | None = None
    unlabelled_batch_size = 64

    trains_autoencoder = False
    """Whether the network has to encode and decode by itself."""

    @abstractmethod
    def __call__(self, step: Step) -> Tensor:
        """Return the loss, a scalar."""


ObjectiveFunction = Callable[[Step], Tensor]


class CrossEntropy(Objective):
    """Cross-entropy on L and G, as in the paper."""

    def __call__(self, step: Step) -> Tensor:
        """Return the mean over the batch, in nats."""
        return F.cross_entropy(step.network(step.images), step.labels)
