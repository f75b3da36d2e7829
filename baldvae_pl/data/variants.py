"""Variants of a data set: a part of W, and W several times over."""

import torch

from baldvae_pl.data.images import Images, Source
from baldvae_pl.errors import SettingError
from baldvae_pl.seeding import Purpose, make_generator

NOISE = 7.9
"""Of repeated images, in levels of 0 to 255: 0.1 of the standard deviation of MNIST's pixels."""


def random_subset(source: Source, size: int) -> Source:
    """Return a source with so many images of W, at random, the same ones at every call.

    Raises:
        SettingError: If it has fewer.
    """
    if size > (there := len(source.train.labels)):
        raise SettingError(
            f"--data.source.subset: {size} is more than the {there} images of the data set. Take "
            f"at most {there}, or leave it out."
        )
    generator = make_generator(0, 0, Purpose.SUBSET)
    chosen = torch.randperm(there, generator=generator)[:size].sort().values
    return source._replace(
        train=Images(*(part[chosen] for part in source.train)),
        files=source.files and [source.files[i] for i in chosen.tolist()],
        fingerprint=None,
        pictures=None if source.pictures is None else source.pictures[chosen],
    )


def repeat_with_noise(source: Source, times: int) -> Source:
    """Return a source with each image of W so often, each time with other noise.

    The redundant pools of Repeated-MNIST (Kirsch et al. 2019): Gaussian noise of `NOISE`, the same
    at every call. With n images, the copies of image i are i, i + n, i + 2n, …

    Raises:
        SettingError: If W is vectors, of which nobody knows how much noise they bear.
    """
    generator = make_generator(0, 0, Purpose.REPEATS)
    images, labels = source.train
    if images.dtype != torch.uint8:
        raise SettingError(
            "--data.source.repeats: the noise is one of 8-bit pixels, and these images are of type "
            f"{images.dtype}. Leave it out."
        )
    noisy = images.repeat(times, 1, 1, 1)
    for part in noisy.split(4096):  # bounds the memory of floats
        noise = NOISE * torch.randn(part.shape, generator=generator)
        part.copy_((part + noise).round().clamp(0, 255))
    return source._replace(
        train=Images(noisy, labels.repeat(times)),
        files=source.files and source.files * times,
        fingerprint=None,
    )
