"""Views of an image: the same class, seen differently.

Float images in [0, 1] of shape (n, channels, height, width), on any device -> as many, each with a
draw of its own (torchvision's transforms draw once a batch). It is drawn from torch's global
generator on the CPU, so that every accelerator sees the same views. Vectors of shape (n, features),
which cannot be moved, lose some of their numbers instead, by dropout.
"""

from math import radians

import torch
from torch import Tensor
from torch.nn import functional as F

HOLE = 0.3
"""Side of the square that a strong view lacks, of the image's."""

KNOTS = 5
"""A wave is drawn at so many points along each side, and smooth between them."""

JITTER = 0.4
"""Brightness, contrast and colour of a strong view lie within 1 ± this."""

LOST = 0.3
"""Share of a vector's numbers that a strong view lacks."""


def weak_view(images: Tensor) -> Tensor:
    """Return images turned by up to 8°, scaled by up to 8 % and shifted by up to 10 %."""
    return images if images.ndim == 2 else random_affine(images, 8, 0.08, 0.1)


def strong_view(images: Tensor) -> Tensor:
    """Return images turned by up to 20°, scaled by up to 20 %, slanted, warped and with a hole.

    Warped as Simard et al. 2003 ("Best Practices for Convolutional Neural Networks") warp digits.
    Colour images are also brighter or darker, of more or less contrast and colour.
    """
    if images.ndim == 2:
        return F.dropout(images, LOST)
    images = random_affine(images, 20, 0.2, 0.1, shear=0.25, warp=0.05)
    if images.shape[1] == 3:
        images = color_jitter(images)
    return cutout(images)


def random_affine(
    images: Tensor,
    degrees: float,
    scale: float,
    shift: float,
    shear: float = 0,
    warp: float = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return each image moved and warped at random, on black; colour ones on a mirror.

    Args:
        images: In [0, 1].
        degrees: The largest angle.
        scale: The largest change of width, and of height, as a share.
        shift: The largest shift in each direction, as a share of the image.
        shear: How far the lower edge is slanted to a side at most, as a share of half a width.
        warp: Standard deviation of a smooth displacement, as a share of the image.
        generator: On the CPU; left out, the global one.
    """
    count, float32 = len(images), torch.float32  # whatever the precision is: places are exact
    drawn_6_n = torch.rand(6, count, generator=generator, dtype=float32) * 2 - 1
    angle, wide, high, right, down, slant = drawn_6_n.unbind()
    cos, sin = (angle * radians(degrees)).cos(), (angle * radians(degrees)).sin()
    aspect = images.shape[3] / images.shape[2]  # both sides are 2 units long
    wide, high = 1 + scale * wide, 1 + scale * high
    across = -sin / (wide * aspect) + shear * slant
    rows = [torch.stack([cos / wide, across, 2 * shift * right], 1)]
    rows += [torch.stack([sin * aspect / high, cos / high, 2 * shift * down], 1)]
    theta_n_2_3 = torch.stack(rows, 1).to(images.device)
    with torch.autocast(images.device.type, enabled=False):
        grid = F.affine_grid(theta_n_2_3, list(images.shape), align_corners=False)
        if warp:
            knots = torch.randn(count, 2, KNOTS, KNOTS, generator=generator, dtype=float32)
            knots = 2 * warp * knots.to(images.device)
            waves = F.interpolate(knots, images.shape[2:], mode="bicubic", align_corners=True)
            grid = grid + waves.permute(0, 2, 3, 1)
        outside = "reflection" if images.shape[1] == 3 else "zeros"
        found = F.grid_sample(images.float(), grid, padding_mode=outside, align_corners=False)
    return found.to(images.dtype)


def color_jitter(images: Tensor) -> Tensor:
    """Return each image with another brightness, contrast and saturation."""
    factors = 1 + JITTER * (torch.rand(3, len(images), 1, 1, 1) * 2 - 1)
    brightness, contrast, saturation = factors.to(images)
    grey = images.mean(1, keepdim=True)
    images = grey + saturation * (images - grey)
    mean = images.mean((1, 2, 3), keepdim=True)
    found: Tensor = brightness * (mean + contrast * (images - mean))
    return found.clamp(0, 1)


def cutout(images: Tensor) -> Tensor:
    """Return each image without a square at a random place: `HOLE` of it, black, or grey in colour.

    The square's centre is anywhere in the image (DeVries and Taylor 2017, "Cutout").
    """
    size, channels, *sides = images.shape
    away = [
        (torch.arange(side) - torch.randint(side, (size, 1))).abs() <= HOLE * side / 2
        for side in sides
    ]
    inside = (away[0][:, None, :, None] & away[1][:, None, None, :]).to(images.device)
    return images.masked_fill(inside, 0.5 if channels == 3 else 0.0)
