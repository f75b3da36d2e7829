"""Objectives: the loss of a training step of the classifier."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.complement import Autoencoder, in_precision_of
from baldvae_pl.errors import SettingError
from baldvae_pl.posterior import eval_mode
from baldvae_pl.selection import Candidates


class Step(NamedTuple):
    """A training step as an objective sees it, on the accelerator.

    Attributes:
        network: The classifier, in training mode.
        images: Of L and G, floats in [0, 1], augmented; shape (n, C, H, W), or vectors (n, D).
        labels: Theirs, shape (n,).
        unlabelled: Images of U, or of all of W, not augmented, if the objective asks for them.
        autoencoder: The frozen VAE of the run, or a part of the module; None if there is none.
        unlabelled_indices: Which images of W ``unlabelled`` are, likewise.
        done: The share of the round's steps that came before.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    unlabelled: Tensor | None = None
    autoencoder: Autoencoder | None = None
    unlabelled_indices: Tensor | None = None
    done: float = 0.0


class Objective(ABC):
    """A loss. Options of a subclass are the parameters of its ``__init__``.

    A subclass that learns from unlabelled images says which, and how many a step. What it puts into
    ``measures`` at a step is logged as ``train/<name>``.
    """

    unlabelled: Literal["U", "W"] | None = None
    unlabelled_batch_size = 64
    measures: Mapping[str, Tensor] = MappingProxyType({})
    trains_autoencoder = False
    """Whether the network has to encode and decode by itself."""
    lr: float | None = None
    """Learning rate of what is trained `beside` the network; None: that of the network."""
    moves_images = False
    """Whether it trains with views so different from the images that at the end of a round the
    statistics of batch normalisation are taken anew, from images as they are."""

    def beside(
        self, network: nn.Module, image_shape: tuple[int, ...], num_classes: int
    ) -> dict[str, nn.Module]:
        """Return fresh modules that are trained beside the network, by name.

        They are ``network.beside``, of which its forward pass knows nothing: in checkpoints, on the
        device and with the optimizer of the network. The network itself has the same weights with
        every objective.

        Args:
            network: Made for the data.
            image_shape: Of an image of W.
            num_classes: Number of classes.
        """
        del network, image_shape, num_classes
        return {}

    def on_train_start(self, candidates: Candidates) -> None:
        """Forget the round before, and look at the pools; called before a round's first step.

        Args:
            candidates: L with its labels, U, and how to look at them; ``network`` is None, since it
                is not trained yet.
        """

    @abstractmethod
    def __call__(self, step: Step) -> Tensor:
        """Return the loss, a scalar."""


ObjectiveFunction = Callable[[Step], Tensor]


class CrossEntropy(Objective):
    """Cross-entropy on L and G, as in the paper."""

    def __call__(self, step: Step) -> Tensor:
        """Return the mean over the batch, in nats."""
        return F.cross_entropy(step.network(step.images), step.labels)


class Consistency(Objective):
    """Cross-entropy, and the same prediction for each image and a fresh complement of it.

    Instead of storing complements with hard labels: in each step x' = d(z), with z around e(x),
    and KL(p(x) || p(x')) is added, whose gradient goes through p(x') alone.

    Args:
        weight: Of the divergence.
        noise: Standard deviations of q(z|x) by which z is moved from its mean; 1 samples q(z|x).
    """

    needs_vae = True

    def __init__(self, weight: float = 1.0, noise: float = 1.0) -> None:
        if weight < 0:
            raise SettingError(f"--model.objective.weight: must be at least 0, got {weight}.")
        self.weight = weight
        self.noise = noise

    def __call__(self, step: Step) -> Tensor:
        """Return the mean over the batch, in nats."""
        frozen = step.autoencoder
        assert frozen is not None
        logits = step.network(step.images)
        with torch.no_grad(), eval_mode(frozen):
            mean, log_var = frozen.encode(in_precision_of(frozen, step.images))
            z = mean + self.noise * torch.randn_like(mean) * (0.5 * log_var).exp()
            decoded = frozen.decode(z)
        log_probs = step.network(decoded.to(step.images)).log_softmax(-1)
        target = logits.detach().log_softmax(-1)
        divergence = F.kl_div(log_probs, target, reduction="batchmean", log_target=True)
        return F.cross_entropy(logits, step.labels) + self.weight * divergence
