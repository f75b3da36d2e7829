"""Acquisition functions: how much would we learn from an image's label?

A function takes ``log_probs_N_T_C``, the class log-probabilities of N images under T posterior
draws, and returns ``scores_N``, the higher the more worth buying. It is a pure function of each
image: no score may depend on the others. `random`, the control, looks at no prediction.
"""

import math

import torch
from torch import Tensor

__all__ = ["bald", "random"]


def entropy(log_probs: Tensor) -> Tensor:
    """Return the entropy in nats over the last dimension; 0 log 0 = 0."""
    # log 0 = -inf would make 0 * -inf = NaN; the lowest finite number makes it 0.
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(-1)


def bald(log_probs_N_T_C: Tensor) -> Tensor:
    """Return the mutual information between label and weights, equation (1) of the paper.

    a(x) = H[mean_t p_t] - mean_t H[p_t] (Houlsby et al. 2011; Gal et al. 2017 for MC dropout).

    Args:
        log_probs_N_T_C: Log-probabilities, at least float32.

    Returns:
        scores_N in nats, 0 <= score <= log C (clamped at 0 against rounding only).
    """
    draws = log_probs_N_T_C.shape[1]
    mean_log_probs_N_C = log_probs_N_T_C.logsumexp(1) - math.log(draws)
    scores_N = entropy(mean_log_probs_N_C) - entropy(log_probs_N_T_C).mean(1)
    return scores_N.clamp(min=0)


random = None
"""The control: looks at no prediction, every image of U is equally likely to be bought."""
