"""BALD-VAE: pool-based active learning with complements for uncertain labelled images."""

__version__ = "0.2.0"
