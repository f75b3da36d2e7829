"""Classifier and VAE as one network: the objective that trains both, as the paper proposes last."""

from typing import Literal

from torch import Tensor

from baldvae_pl.complement import Autoencoder
from baldvae_pl.elbo import Likelihood, negative_elbo
from baldvae_pl.errors import SettingError
from baldvae_pl.objective import CrossEntropy, Objective, Step


class Joint(Objective):
    """Cross-entropy on L and G plus a share of the negative ELBO on all of W.

    The future work of Lee and Kim (2019): encoder and classifier share their layers, both are
    trained in each round, and complements come from that round's decoder.

    Args:
        weight: Of the negative ELBO, which is some hundred nats an image; the cross-entropy has 1.
        unlabelled_batch_size: Images of W a step, over all processes.
        likelihood: As of ``--vae.likelihood``.
    """

    unlabelled: Literal["W"] = "W"
    trains_autoencoder = True

    def __init__(
        self,
        weight: float = 0.01,
        unlabelled_batch_size: int = 64,
        likelihood: Likelihood = "bernoulli",
    ) -> None:
        if weight < 0:
            raise SettingError(f"--model.objective.weight: must be at least 0, got {weight}.")
        self.weight = weight
        self.unlabelled_batch_size = unlabelled_batch_size
        self.likelihood = likelihood

    def __call__(self, step: Step) -> Tensor:
        """Return the loss in nats."""
        assert isinstance(step.network, Autoencoder)
        assert step.unlabelled is not None
        reconstruction, divergence = negative_elbo(step.network, step.unlabelled, self.likelihood)
        return CrossEntropy()(step) + self.weight * (reconstruction + divergence)
