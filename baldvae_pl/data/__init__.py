"""Data: images on disk -> W, pools and batches.

The data module is imported when it is first asked for: the labelling page reads labels and images
without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baldvae_pl.data.module import PoolDataModule

__all__ = ["PoolDataModule"]


def __getattr__(name: str) -> Any:
    if name != "PoolDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from baldvae_pl.data.module import PoolDataModule

    return PoolDataModule
