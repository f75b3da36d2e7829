"""Data: images on disk -> W, pools and batches."""

from baldvae_pl.data.module import PoolDataModule

__all__ = ["PoolDataModule"]
