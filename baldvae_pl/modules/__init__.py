"""LightningModules: the classifier M and the VAE."""

from baldvae_pl.modules.classifier import Classifier
from baldvae_pl.modules.vae import VAE, train_vae

__all__ = ["VAE", "Classifier", "train_vae"]
