"""Views against their definition: where a pixel goes, what is kept, what decides the draws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baldvae_pl.views import (
    HOLE,
    JITTER,
    LOST,
    color_jitter,
    cutout,
    random_affine,
    strong_view,
    weak_view,
)


def centre(images: torch.Tensor) -> torch.Tensor:
    """The centre of brightness of each image, in pixels from its middle: (n, right and down)."""
    _, _, height, width = images.shape
    mass = images.sum((1, 2, 3))
    right = (images.sum((1, 2)) * (torch.arange(width) - (width - 1) / 2)).sum(1) / mass
    down = (images.sum((1, 3)) * (torch.arange(height) - (height - 1) / 2)).sum(1) / mass
    return torch.stack([right, down], 1)


def blob(right: float, down: float) -> torch.Tensor:
    """A soft spot in a 64 × 64 image, so far from its middle."""
    axis = torch.arange(64) - 31.5
    squares = (axis - right).square() + (axis - down).square()[:, None]
    return (-squares / 18).exp()[None, None]


@given(
    size=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
    height=st.integers(2, 40),
    width=st.integers(2, 40),
    seed=st.integers(0, 9),
)
def test_views_are_images_of_the_same_shape_that_the_generator_alone_decides(
    size: int, channels: int, height: int, width: int, seed: int
) -> None:
    images = torch.rand(size, channels, height, width)
    for view in (weak_view, strong_view):
        torch.manual_seed(seed)
        one = view(images)
        torch.manual_seed(seed)
        assert torch.equal(one, view(images))
        assert one.shape == images.shape
        assert one.min() >= 0
        assert one.max() <= 1 + 1e-6


def test_nothing_is_moved_by_nothing() -> None:
    images = torch.rand(4, 3, 9, 14)
    torch.testing.assert_close(random_affine(images, 0, 0, 0), images)


def test_shifts_are_even_and_as_far_as_they_may_be() -> None:
    torch.manual_seed(0)
    far = centre(random_affine(blob(0, 0).expand(4000, -1, -1, -1), 0, 0, 0.1))
    assert far.abs().max() == pytest.approx(6.4, abs=0.1)
    assert far.mean(0).abs().max() < 0.2
    # Of an even distribution from -6.4 to 6.4.
    assert far.std(0).tolist() == pytest.approx([6.4 / 3**0.5] * 2, rel=0.05)


def test_images_are_turned_about_their_middle_and_scaled() -> None:
    torch.manual_seed(0)
    turned = centre(random_affine(blob(16, 0).expand(2000, -1, -1, -1), 25, 0, 0))
    assert turned.norm(dim=1).tolist() == pytest.approx([16] * 2000, abs=0.1)
    angle = torch.rad2deg(torch.atan2(turned[:, 1], turned[:, 0]))
    assert angle.abs().max() == pytest.approx(25, abs=0.3)
    scaled = centre(random_affine(blob(16, 0).expand(2000, -1, -1, -1), 0, 0.25, 0))
    assert scaled[:, 0].min() == pytest.approx(12, abs=0.1)
    assert scaled[:, 0].max() == pytest.approx(20, abs=0.1)


def test_a_slant_moves_what_is_low_to_a_side_and_the_middle_not_at_all() -> None:
    torch.manual_seed(0)
    low = centre(random_affine(blob(0, 16).expand(2000, -1, -1, -1), 0, 0, 0, 0.25))
    assert low[:, 0].abs().max() == pytest.approx(4, abs=0.1)
    assert low[:, 1].tolist() == pytest.approx([16] * 2000, abs=0.1)
    middle = centre(random_affine(blob(0, 0).expand(200, -1, -1, -1), 0, 0, 0, 0.25))
    assert middle.abs().max() < 0.05


def test_a_wave_moves_neighbours_alike_and_far_places_each_its_own_way() -> None:
    torch.manual_seed(0)
    ramp = (torch.arange(65) / 65).expand(4000, 3, 65, 65)  # its value says from where a pixel is
    by = (random_affine(ramp, 0, 0, 0, warp=0.05) - ramp)[:, 0]
    middle, beside, far = by[:, 32, 32], by[:, 32, 34], by[:, 32, 16]
    assert middle.mean().abs() < 0.003
    assert middle.std().item() == pytest.approx(0.05, rel=0.05)  # a knot lies here, and a next one
    assert far.std().item() == pytest.approx(0.05, rel=0.05)
    assert torch.corrcoef(torch.stack([middle, beside]))[0, 1] > 0.95
    assert torch.corrcoef(torch.stack([middle, far]))[0, 1].abs() < 0.1


def test_a_hole_is_a_square_of_the_stated_size_anywhere() -> None:
    torch.manual_seed(0)
    lost = cutout(torch.ones(3000, 1, 28, 28))[:, 0] == 0
    sides = torch.stack([lost.any(2).sum(1), lost.any(1).sum(1)], 1)
    assert torch.equal(lost.sum((1, 2)), sides.prod(1))  # a rectangle without gaps
    assert sides.max() == 2 * int(HOLE * 14) + 1
    assert sides.min() == int(HOLE * 14) + 1  # its centre in a corner
    assert (lost.float().mean(0) > 0).all()
    assert cutout(torch.ones(5, 3, 28, 28)).unique().tolist() == [0.5, 1]


def test_a_colour_image_keeps_its_hue_and_is_dimmed_as_far_as_stated() -> None:
    torch.manual_seed(0)
    grey = color_jitter(torch.full((2000, 3, 4, 4), 0.5))
    assert grey.flatten(1).std(1).max() < 1e-6
    assert grey.min() == pytest.approx(0.5 * (1 - JITTER), abs=0.002)
    assert grey.max() == pytest.approx(0.5 * (1 + JITTER), abs=0.002)


def test_grey_images_are_surrounded_by_black_and_colour_ones_by_a_mirror() -> None:
    torch.manual_seed(0)
    assert random_affine(torch.ones(50, 1, 20, 20), 0, 0, 0.2).min() == 0
    torch.testing.assert_close(
        random_affine(torch.ones(50, 3, 20, 20), 25, 0.25, 0.2), torch.ones(50, 3, 20, 20)
    )


def test_vectors_lose_some_numbers_in_a_strong_view_alone() -> None:
    torch.manual_seed(0)
    vectors = torch.rand(500, 40) + 1
    assert weak_view(vectors) is vectors
    strong = strong_view(vectors)
    kept = strong != 0
    torch.testing.assert_close(strong[kept], vectors[kept] / (1 - LOST))
    assert kept.float().mean().item() == pytest.approx(1 - LOST, abs=0.02)
