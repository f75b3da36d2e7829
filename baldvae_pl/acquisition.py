"""Acquisition functions: how much would we learn from an image's label?

A function takes ``log_probs_N_T_C``, the class log-probabilities of N images under T posterior
draws, and returns ``scores_N``, the higher the more worth buying. It is a pure function of each
image: no score may depend on the others. `random`, the control, looks at no prediction.
"""

from torch import Tensor
from torch.special import entr

__all__ = ["bald", "random"]


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


random = None
"""The control: looks at no prediction, every image of U is equally likely to be bought."""
