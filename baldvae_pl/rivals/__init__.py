"""The methods that the paper's section II names, and others with networks of their own."""

from baldvae_pl.rivals.asal import ASAL
from baldvae_pl.rivals.bayesian_augmentation import BayesianAugmentation
from baldvae_pl.rivals.gaal import GAAL
from baldvae_pl.rivals.judge import Judge
from baldvae_pl.rivals.learning_loss import LearningLoss, PredictedLoss
from baldvae_pl.rivals.vaal import VAAL, LeastLabelled
from baldvae_pl.rivals.vae_acgan import VAEACGAN, Regenerated

__all__ = [
    "ASAL",
    "GAAL",
    "VAAL",
    "VAEACGAN",
    "BayesianAugmentation",
    "Judge",
    "LearningLoss",
    "LeastLabelled",
    "PredictedLoss",
    "Regenerated",
]
