"""Variants of a data set: a part of W, and W several times over with noise."""

from pathlib import Path

import numpy as np
import pytest
import torch

from baldvae_pl.data.images import Images, Source
from baldvae_pl.data.sources import Digits
from baldvae_pl.data.variants import NOISE, random_subset, repeat_with_noise
from baldvae_pl.errors import SettingError


@pytest.fixture(scope="module")
def digits_source() -> Source:
    return Digits()(Path("unused"))


def test_a_subset_is_the_same_images_every_time_with_their_labels_and_files(
    digits_source: Source,
) -> None:
    named = digits_source._replace(files=[f"{i}.png" for i in range(1297)], fingerprint="x")
    chosen, again = (random_subset(named, 100) for _ in range(2))
    assert torch.equal(chosen.train.images, again.train.images)
    numbers = [int(file.removesuffix(".png")) for file in chosen.files]
    assert numbers == sorted(set(numbers))
    assert torch.equal(chosen.train.images, digits_source.train.images[numbers])
    assert torch.equal(chosen.train.labels, digits_source.train.labels[numbers])
    assert chosen.test is named.test
    assert chosen.fingerprint is None  # they are other images now
    assert abs(np.mean(numbers) - 648) < 5 * 1297 / 12**0.5 / 10
    assert Digits()(Path("unused")).train.images.shape[0] == 1297  # left out, all of them
    with pytest.raises(SettingError, match=r"--data\.source\.subset: 1298 is more than the 1297"):
        random_subset(named, 1298)


def test_repeated_images_differ_by_noise_of_a_tenth_of_the_spread(digits_source: Source) -> None:
    grey = Images(torch.full((5000, 1, 4, 4), 128, dtype=torch.uint8), torch.arange(5000) % 10)
    source = digits_source._replace(train=grey, files=[str(i) for i in range(5000)])
    four = repeat_with_noise(source, 4)
    assert four.train.images.shape == (20_000, 1, 4, 4)
    assert torch.equal(four.train.labels, grey.labels.repeat(4))
    assert four.files[5001] == "1"
    noise = four.train.images.float() - 128
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(0.1 * 0.3081 * 255, rel=0.02)
    assert not torch.equal(four.train.images[:5000], four.train.images[5000:10_000])
    assert torch.equal(four.train.images, repeat_with_noise(source, 4).train.images)
    assert four.fingerprint is None  # they are other images now
    assert four.test is source.test
    extremes = repeat_with_noise(digits_source, 2).train.images  # no number runs over
    assert (extremes[1297:].float() - digits_source.train.images.float()).abs().max() < 60


def test_noise_is_a_tenth_of_the_spread_of_mnist() -> None:
    assert pytest.approx(0.1 * 0.3081 * 255, abs=0.05) == NOISE


def test_a_part_of_vectors_takes_its_pictures_along() -> None:
    train = Images(torch.arange(20.0).view(10, 2), torch.arange(10) % 2)
    pictures = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    source = Source(train, train, ["a", "b"], pictures=pictures)
    part = random_subset(source, 4)
    assert torch.equal(part.pictures.flatten(), (part.train.images[:, 0] / 2).byte())
    assert random_subset(source._replace(pictures=None), 4).pictures is None


def test_variants_leave_the_source_and_the_global_generator_alone(digits_source: Source) -> None:
    before = digits_source.train.images.clone()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    random_subset(digits_source, 5)
    repeat_with_noise(digits_source, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(digits_source.train.images, before)


def test_vectors_cannot_be_repeated_with_the_noise_of_pixels() -> None:
    train = Images(torch.arange(20.0).view(10, 2), torch.arange(10) % 2)
    with pytest.raises(SettingError, match=r"--data\.source\.repeats: .* torch\.float32"):
        repeat_with_noise(Source(train, train, ["a", "b"]), 2)
