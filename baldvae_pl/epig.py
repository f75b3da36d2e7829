"""EPIG: how much would an image's label tell of the labels of others?

BALD asks what a label tells of the weights, all of them; much of that may have no bearing on any
prediction that is wanted. EPIG asks what it tells of the predictions for target images (Bickford
Smith et al. 2023, "Prediction-Oriented Bayesian Active Learning", AISTATS).
"""

import torch
from torch import Tensor
from torch.special import entr

from baldvae_pl.acquisition import AcquisitionFunction, NetworkScore
from baldvae_pl.errors import SettingError

NUMBERS_AT_ONCE = 2**23
"""So many joint probabilities at a time, but at least those of one image."""


class EPIG:
    """Expected predictive information gain, averaged over target images.

    The targets are drawn anew each round from all images but the test set and the audit, and are
    looked at under the same posterior draws as the images that are scored.

    Args:
        targets: Number of target images M.
    """

    def __init__(self, targets: int = 100) -> None:
        if targets < 1:
            raise SettingError(
                f"--acquisition.function.targets: must be at least 1, got {targets}."
            )
        self.targets = targets

    def given(self, log_probs_M_T_C: Tensor) -> AcquisitionFunction:
        """Return the acquisition function for these targets.

        It scores an image x by the mean over targets x* of I(y; y*), where the joint distribution
        of the two labels is mean_t p_t(y) p_t(y*): in nats, 0 <= score <= log C (clamped at 0
        against rounding only).

        Args:
            log_probs_M_T_C: The targets' log-probabilities under the draws of what is scored.
        """
        target_probs_M_T_C = log_probs_M_T_C.exp()
        target_entropy = entr(target_probs_M_T_C.mean(1)).sum(-1).mean()
        targets, draws, classes = log_probs_M_T_C.shape
        target_probs_T_MC = target_probs_M_T_C.transpose(0, 1).flatten(1) / draws
        size = max(1, NUMBERS_AT_ONCE // (targets * classes**2))

        def epig(log_probs_N_T_C: Tensor) -> Tensor:
            target_probs = target_probs_T_MC.to(log_probs_N_T_C)
            probs_N_C_T = log_probs_N_T_C.exp().transpose(1, 2)
            joint_entropy_N = torch.cat(
                [
                    entr(part @ target_probs).sum((1, 2)) / targets
                    for part in probs_N_C_T.split(size)
                ]
            )
            entropy_N = entr(probs_N_C_T.mean(2)).sum(-1)
            scores_N: Tensor = entropy_N + target_entropy.to(entropy_N) - joint_entropy_N
            return scores_N.clamp(min=0)

        return epig


Acquisition = AcquisitionFunction | NetworkScore | EPIG
"""Whatever gives priorities: a function of log-probabilities, of the network, or of targets too."""
