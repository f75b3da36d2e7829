"""In which space images are near to each other."""

from typing import Any, Literal

import torch
from torch import Tensor

from baldvae_pl.complement import in_precision_of
from baldvae_pl.errors import SettingError
from baldvae_pl.posterior import eval_mode
from baldvae_pl.selection import Candidates

Space = Literal["features", "latents", "images"]
"""What the trained network's ``trunk`` makes of an image, the mean of q(z|x) of the VAE, or what W
holds, which is the space to take where W is vectors of a frozen network."""


def points(candidates: Candidates, indices: Tensor, space: Space) -> Tensor:
    """Return images of W as points, shape (n, D), float32 on the CPU.

    Args:
        candidates: Knows how to look at them.
        indices: Global indices.
        space: Which numbers of an image are its coordinates.

    Raises:
        SettingError: If there is no trunk, or no autoencoder.
    """
    if space == "features":
        return candidates.features(indices)
    if space == "images":
        return candidates.map(lambda images: images.flatten(1), indices)
    autoencoder: Any = candidates.autoencoder
    if autoencoder is None:
        if candidates.network is None:
            raise SettingError(
                "--acquisition.initial_selection: latents are asked for as the space, and no "
                "autoencoder is trained before round 0: the run has no VAE, or the network is its "
                "own. Take images as the space."
            )
        raise SettingError(
            "--acquisition: latents are asked for as the space, and the run has no VAE. Take "
            "features or images."
        )

    def mean(images: Tensor) -> Tensor:
        encoded: Tensor = autoencoder.encode(in_precision_of(autoencoder, images))[0]
        return encoded.flatten(1)

    with eval_mode(autoencoder):
        return candidates.map(mean, indices)


def some_of(indices: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return so many of these indices at random, in their order; all if there are no more."""
    if len(indices) <= most:
        return indices
    return indices[torch.randperm(len(indices), generator=generator)[:most].sort().values]
