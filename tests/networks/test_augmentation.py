"""Augmentations against their definition, and where they are applied."""

from pathlib import Path

import pytest
import torch
from helpers import SMALL
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from baldvae_pl.errors import SettingError
from baldvae_pl.main import main
from baldvae_pl.modules import classifier as modules
from baldvae_pl.modules.classifier import Classifier
from baldvae_pl.networks.augmentation import crop, crop_and_flip
from baldvae_pl.objective import Step


def all_crops(image: torch.Tensor) -> set[bytes]:
    """What cropping an image can lead to."""
    height, width = image.shape[1:]
    down, right = height // 8, width // 8
    padded = F.pad(image, (right, right, down, down))
    return {
        padded[:, y : y + height, x : x + width].contiguous().numpy().tobytes()
        for y in range(2 * down + 1)
        for x in range(2 * right + 1)
    }


@given(
    size=st.integers(0, 5),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 33),
    width=st.integers(1, 33),
)
def test_a_crop_is_one_of_the_possible_ones(
    size: int, channels: int, height: int, width: int
) -> None:
    images = torch.rand(size, channels, height, width)
    found = crop(images)
    assert found.shape == images.shape
    for image, moved in zip(images, found, strict=True):
        assert moved.contiguous().numpy().tobytes() in all_crops(image)


def test_each_image_is_moved_and_mirrored_by_itself_and_evenly() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 16, 16)
    found = crop_and_flip(image.expand(10_000, -1, -1, -1))
    plain, mirrored = (sorted(all_crops(one)) for one in (image[0], image[0].flip(-1)))
    # Mirroring a moved image moves the mirrored one, so that each has all 25 positions.
    counts = dict.fromkeys([*plain, *mirrored], 0)
    for moved in found:
        counts[moved.contiguous().numpy().tobytes()] += 1
    assert len(counts) == 50
    assert max(abs(count - 200) for count in counts.values()) < 5 * 200**0.5


def test_only_training_steps_of_the_classifier_are_augmented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []

    def count(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images

    monkeypatch.setattr(modules.augmentations, "crop", count)
    main([*SMALL, "--model.augmentation=crop", "--acquisition.rounds=2"])
    # Three rounds of eight steps; no test, scoring, VAE or complement passes through it.
    assert seen == [32] * 24


def test_augmented_steps_see_augmented_images() -> None:
    black = Classifier(augmentation=torch.zeros_like)
    black.log = lambda *args, **kwargs: None
    black.eval()
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    expected = F.cross_entropy(black(torch.zeros_like(images)), labels)
    torch.testing.assert_close(black.training_step((images, labels), 0), expected)


def test_unlabelled_images_of_a_step_are_not_augmented() -> None:
    steps = []

    def objective(step: Step) -> torch.Tensor:
        steps.append(step)
        return step.images.sum()

    black = Classifier(augmentation=torch.zeros_like, objective=objective)
    black.log = lambda *args, **kwargs: None
    images, labels, others = torch.rand(4, 1, 8, 8), torch.arange(4), torch.rand(3, 1, 8, 8)
    batch = {"labelled": (images, labels), "unlabelled": (others, torch.full((3,), -1))}
    assert black.training_step(batch, 0) == 0
    (step,) = steps
    assert step.unlabelled is others
    assert step.images.abs().max() == 0
    assert step.labels is labels
    assert step.network is black.network


def test_an_unknown_augmentation_names_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"--model\.augmentation: .* crop, crop_and_flip"):
        Classifier(augmentation="rotate")
