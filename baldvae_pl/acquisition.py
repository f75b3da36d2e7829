"""Acquisition functions: how much would we learn from an image's label?

A function takes ``log_probs_N_T_C``, the class log-probabilities of N images under T posterior
draws (natural log, at least float32), and returns ``scores_N``, the higher the more worth buying.
It is a pure function of each image: no score may depend on the others. Which images are bought
together for their scores is the business of `baldvae_pl.selection`.

A function that has to see more than log-probabilities is a `NetworkScore`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn
from torch.special import entr

__all__ = [
    "bald",
    "least_confidence",
    "margin",
    "max_entropy",
    "mean_std",
    "variation_ratios",
]

AcquisitionFunction = Callable[[Tensor], Tensor]


class NetworkScore(ABC):
    """An acquisition function of the trained network itself: its features, its own outputs.

    The network is in eval mode and no gradients are kept. Options of a subclass are the parameters
    of its ``__init__``.
    """

    @abstractmethod
    def score(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return scores_N of float images in [0, 1], shape (N, C, H, W), or vectors (N, D)."""


def bald(log_probs_N_T_C: Tensor) -> Tensor:
    """Return the mutual information between label and weights, equation (1) of the paper.

    a(x) = H[mean_t p_t] - mean_t H[p_t] (Houlsby et al. 2011; Gal et al. 2017 for MC dropout).

    Args:
        log_probs_N_T_C: Log-probabilities, at least float32.

    Returns:
        scores_N in nats, 0 <= score <= log C (clamped at 0 against rounding only).
    """
    probs_N_T_C = log_probs_N_T_C.exp()
    mean_entropy_N = entr(probs_N_T_C).sum(-1).mean(1)
    scores_N: Tensor = entr(probs_N_T_C.mean(1)).sum(-1) - mean_entropy_N
    return scores_N.clamp(min=0)


def max_entropy(log_probs_N_T_C: Tensor) -> Tensor:
    """Return the entropy of the mean prediction, in nats (Shannon 1948), 0 to log C."""
    scores_N: Tensor = entr(log_probs_N_T_C.exp().mean(1)).sum(-1)
    return scores_N


def least_confidence(log_probs_N_T_C: Tensor) -> Tensor:
    """Return 1 - the mean prediction's highest probability (Lewis and Gale 1994), 0 to 1 - 1/C."""
    return 1 - log_probs_N_T_C.exp().mean(1).amax(-1)


def margin(log_probs_N_T_C: Tensor) -> Tensor:
    """Return 1 - the mean prediction's lead of first over second class (Scheffer et al. 2001).

    0 to 1; the literature buys the smallest lead, which is the same order.
    """
    first_N, second_N = log_probs_N_T_C.exp().mean(1).topk(2).values.unbind(-1)
    return 1 - (first_N - second_N)


def variation_ratios(log_probs_N_T_C: Tensor) -> Tensor:
    """Return the share of draws that do not predict the most predicted class (Freeman 1965).

    0 to 1 - 1/C, a multiple of 1/T; of two classes that are equally likely under a draw, the first
    is its prediction.
    """
    _, draws, classes = log_probs_N_T_C.shape
    predicted_N_T = log_probs_N_T_C.argmax(-1)
    votes_N_C = predicted_N_T.new_zeros(len(predicted_N_T), classes)
    votes_N_C.scatter_add_(1, predicted_N_T, predicted_N_T.new_ones(()).expand_as(predicted_N_T))
    return 1 - votes_N_C.amax(-1) / draws


def mean_std(log_probs_N_T_C: Tensor) -> Tensor:
    """Return the standard deviation over draws, averaged over classes (Kendall et al. 2017).

    0 to 1/2; of the draws as a population, as sqrt(mean_t p_t^2 - (mean_t p_t)^2).
    """
    return log_probs_N_T_C.exp().std(1, correction=0).mean(-1)


NEED_DISAGREEMENT: tuple[AcquisitionFunction, ...] = (bald, mean_std, variation_ratios)
"""These are 0 everywhere if all draws agree; the others work with one deterministic pass too."""
